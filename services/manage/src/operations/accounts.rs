//! Accounts with their keys and grants, for operators. A `check` or a `decide` sees the account as it is in the
//! transaction.

use crate::{Manage, fresh_id, ledger_away, secrets};
use herald_access::problem::Problem;
use herald_access::{Caller, hash_key};
use herald_domain::access::{Account, Grant, OPERATOR, Role, Roles};
use herald_domain::id::{AccountId, KeyId};
use herald_domain::time::Timestamp;
use herald_ledger::accounts::{AccountChange, AccountRecord, ApiKey};

/// The account with its keys and grants.
pub(crate) async fn find(manage: &Manage, id: AccountId) -> Result<AccountRecord, Problem> {
    let found = manage.ledger.account(id).await.map_err(ledger_away)?;
    found.ok_or_else(|| Problem::not_found("account"))
}

/// Accounts, the operator's own first and then the newest; those after `before` in that order, at most `limit`.
pub(crate) async fn list(
    manage: &Manage,
    before: Option<AccountId>,
    limit: usize,
) -> Result<Vec<AccountRecord>, Problem> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    manage.ledger.accounts(before, limit).await.map_err(ledger_away)
}

/// Creates an account, without keys and grants; when it was made.
pub(crate) async fn create(manage: &Manage, by: Caller, account: Account) -> Result<Timestamp, Problem> {
    let created = manage.ledger.create_account(account, by.account()).await;
    let created_at = created.map_err(ledger_away)?;
    manage.refresh().await;
    Ok(created_at)
}

/// Gives an account the name, the activity and the roles that `decide` says.
pub(crate) async fn set(
    manage: &Manage,
    by: Caller,
    id: AccountId,
    decide: impl FnOnce(&AccountRecord) -> Result<Account, Problem> + Send + 'static,
) -> Result<AccountRecord, Problem> {
    let changed = change(manage, by, id, move |present| {
        let Account {
            name, active, roles, ..
        } = decide(present)?;
        if id == OPERATOR && !(active && roles.has(Role::Operator)) {
            return Err(Problem::conflict(
                "this is the operator's own account; it cannot be deactivated and cannot lose the role Operator",
            ));
        }
        Ok(AccountChange::Settings { name, active, roles })
    });
    changed.await
}

/// Makes a key with the name and the roles that `decide` says; it, and its secret.
pub(crate) async fn add_key(
    manage: &Manage,
    by: Caller,
    account: AccountId,
    decide: impl FnOnce(&AccountRecord) -> Result<(Option<String>, Roles), Problem> + Send + 'static,
) -> Result<(ApiKey, String), Problem> {
    let secret = secrets::api_key(secrets::system)?;
    let id = KeyId(fresh_id());
    let (hash, created_at) = (hash_key(&secret), manage.ledger.now());
    let record = change(manage, by, account, move |present| {
        let (name, roles) = decide(present)?;
        Ok(AccountChange::AddKey(ApiKey {
            id,
            account,
            name,
            hash,
            roles,
            created_at,
        }))
    });
    let made = record.await?.keys.into_iter().find(|key| key.id == id);
    Ok((made.ok_or_else(|| Problem::not_found("key"))?, secret))
}

pub(crate) async fn remove_key(
    manage: &Manage,
    by: Caller,
    account: AccountId,
    id: KeyId,
    check: impl FnOnce(&ApiKey) -> Result<(), Problem> + Send + 'static,
) -> Result<(), Problem> {
    let removed = change(manage, by, account, move |present| {
        check(key(present, id)?)?;
        Ok(AccountChange::RemoveKey(id))
    });
    removed.await.map(drop)
}

/// The account's key of that id.
pub(crate) fn key(account: &AccountRecord, id: KeyId) -> Result<&ApiKey, Problem> {
    let found = account.keys.iter().find(|key| key.id == id);
    found.ok_or_else(|| Problem::not_found("key"))
}

/// Gives a permission; giving it twice is giving it once.
pub(crate) async fn add_grant(
    manage: &Manage,
    by: Caller,
    account: AccountId,
    grant: Grant,
    check: impl FnOnce(&AccountRecord) -> Result<(), Problem> + Send + 'static,
) -> Result<(), Problem> {
    let given = change(manage, by, account, move |present| {
        check(present)?;
        Ok(AccountChange::AddGrant(grant))
    });
    given.await.map(drop)
}

/// Takes a permission away.
pub(crate) async fn remove_grant(
    manage: &Manage,
    by: Caller,
    account: AccountId,
    grant: Grant,
    check: impl FnOnce(&AccountRecord) -> Result<(), Problem> + Send + 'static,
) -> Result<(), Problem> {
    let taken = change(manage, by, account, move |present| {
        check(present)?;
        if !present.account.grants.contains(&grant) {
            return Err(Problem::not_found("permission of this account"));
        }
        Ok(AccountChange::RemoveGrant(grant))
    });
    taken.await.map(drop)
}

/// Changes the account as `decide` says, which sees it as it is in the transaction.
async fn change(
    manage: &Manage,
    by: Caller,
    id: AccountId,
    decide: impl FnOnce(&AccountRecord) -> Result<AccountChange, Problem> + Send + 'static,
) -> Result<AccountRecord, Problem> {
    let changed = manage.ledger.change_account(id, by.account(), decide).await;
    let record = changed
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("account"))??;
    manage.refresh().await;
    Ok(record)
}
