//! Accounts, with their keys and grants, as operators find and change them.

use crate::{Manage, ledger_away};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_domain::access::{Role, Roles};
use herald_domain::id::AccountId;
use herald_ledger::accounts::{AccountChange, AccountRecord};

/// Changes the account as `decide` says, which sees it as it is in the transaction.
pub(crate) async fn change(
    manage: &Manage,
    id: AccountId,
    by: Caller,
    decide: impl FnOnce(&AccountRecord) -> Result<AccountChange, Problem> + Send + 'static,
) -> Result<AccountRecord, Problem> {
    let changed = manage.ledger.change_account(id, by.account(), decide).await;
    let record = changed
        .map_err(ledger_away)?
        .ok_or_else(|| Problem::not_found("account"))??;
    manage.refresh().await;
    Ok(record)
}

/// The account with its keys and grants.
pub(crate) async fn find(manage: &Manage, id: AccountId) -> Result<AccountRecord, Problem> {
    let found = manage.ledger.account(id).await.map_err(ledger_away)?;
    found.ok_or_else(|| Problem::not_found("account"))
}

/// The names of roles, as they are shown.
pub(crate) fn role_names(roles: Roles) -> Vec<&'static str> {
    roles.iter().map(Role::name).collect()
}
