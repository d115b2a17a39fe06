//! Accounts, their keys and grants. A change of any of them is a change of the account.

use crate::sql::{all, corrupt, execute, get, one, timestamp, uuid};
use crate::{Error, Ledger, locks, version};
use herald_domain::access::{Account, Grant, Roles};
use herald_domain::catalogue::ObjectType;
use herald_domain::id::{AccountId, KeyId, ObjectGuid};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, QueryResult, Value};
use std::collections::HashMap;
use uuid::Uuid;

/// An API key as it is kept: never the key, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The id of the key, which is no secret.
    pub id: KeyId,
    /// The account to which it belongs.
    pub account: AccountId,
    /// A name for people.
    pub name: Option<String>,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What it may do, if its account may too.
    pub roles: Roles,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An account with its keys and the time it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// The account with its grants.
    pub account: Account,
    /// Its keys, newest first.
    pub keys: Vec<ApiKey>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One change of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// Name, activity and roles as given.
    Settings {
        /// A name for people.
        name: String,
        /// Whether its keys work and its subscriptions are sent to.
        active: bool,
        /// What its keys may do at most.
        roles: Roles,
    },
    /// Adds a key.
    AddKey(ApiKey),
    /// The key of that id no more.
    RemoveKey(KeyId),
    /// A permission; giving it twice is giving it once.
    AddGrant(Grant),
    /// A permission no more.
    RemoveGrant(Grant),
}

impl AccountChange {
    /// The action and its subject, for the audit log.
    fn named(&self, account: AccountId) -> (&'static str, String) {
        match self {
            Self::Settings { .. } => ("account.update", account.to_string()),
            Self::AddKey(key) => ("key.create", key.id.to_string()),
            Self::RemoveKey(key) => ("key.delete", key.to_string()),
            Self::AddGrant(_) => ("grant.create", account.to_string()),
            Self::RemoveGrant(_) => ("grant.delete", account.to_string()),
        }
    }
}

impl Ledger {
    /// Adds an account without keys.
    pub async fn create_account(&self, account: Account, by: AccountId) -> Result<Timestamp, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                insert_account(txn, &account, now).await?;
                version::log(txn, Some(by), "account.create", &account.id.to_string(), now).await?;
                Ok(now)
            })
        })
        .await
    }

    /// Changes an account as `decide` says, which sees it as it is in the transaction. So of two changes at the same
    /// time neither undoes the other. Returns the account after the change, or `None` if there is none. If `decide`
    /// refuses, nothing is written.
    pub async fn change_account<R>(
        &self,
        id: AccountId,
        by: AccountId,
        decide: impl FnOnce(&AccountRecord) -> Result<AccountChange, R> + Send + 'static,
    ) -> Result<Option<Result<AccountRecord, R>>, Error>
    where
        R: Send + 'static,
    {
        self.change(move |txn, now| {
            Box::pin(async move {
                let Some(present) = find(txn, id).await? else {
                    return Ok(None);
                };
                let change = match decide(&present) {
                    Ok(change) => change,
                    Err(refusal) => return Ok(Some(Err(refusal))),
                };
                let (action, subject) = change.named(id);
                write(txn, id, change).await?;
                touch(txn, id).await?;
                version::log(txn, Some(by), action, &subject, now).await?;
                let changed = find(txn, id).await?.ok_or_else(|| corrupt("no account"))?;
                Ok(Some(Ok(changed)))
            })
        })
        .await
    }

    /// An account with its keys and grants.
    pub async fn account(&self, id: AccountId) -> Result<Option<AccountRecord>, Error> {
        self.store.ask(find(self.store.api(), id)).await
    }

    /// Accounts, the operator's and then the newest first, those before `before`.
    pub async fn accounts(&self, before: Option<AccountId>, limit: u64) -> Result<Vec<AccountRecord>, Error> {
        let (condition, values) = match before {
            // The operator's id is the greatest there is, so no bound would be above it.
            None => ("", Vec::new()),
            Some(before) => ("WHERE a.id < $1", vec![before.0.into()]),
        };
        self.store.ask(load(self.store.api(), condition, values, limit)).await
    }

    /// Adds the operator's account if it is not there, and `key` if the operator has none. Returns whether the key was
    /// added.
    pub async fn ensure_operator(&self, key: Option<ApiKey>) -> Result<bool, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                let operator = herald_domain::access::OPERATOR;
                if one(txn, "SELECT 1 FROM accounts WHERE id = $1", [operator.0.into()])
                    .await?
                    .is_none()
                {
                    let account = Account {
                        id: operator,
                        name: "operator".to_owned(),
                        active: true,
                        roles: Roles::OPERATOR,
                        grants: Vec::new(),
                    };
                    insert_account(txn, &account, now).await?;
                }
                let has_key = one(txn, "SELECT 1 FROM api_keys WHERE account = $1", [operator.0.into()]).await?;
                match key {
                    Some(key) if has_key.is_none() => {
                        insert_key(txn, &key).await?;
                        touch(txn, operator).await
                    }
                    Some(_) | None => Ok(false),
                }
            })
        })
        .await
    }

    async fn change<T, F>(&self, change: F) -> Result<T, Error>
    where
        F: for<'t> FnOnce(&'t DatabaseTransaction, Timestamp) -> futures_util::future::BoxFuture<'t, Result<T, Error>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        let result = self
            .store
            .write(move |txn, now| {
                Box::pin(async move {
                    let now = locks::change(txn, now).await?;
                    change(txn, now).await
                })
            })
            .await;
        self.signals.registry.notify_waiters();
        result
    }
}

async fn write(txn: &DatabaseTransaction, account: AccountId, change: AccountChange) -> Result<(), Error> {
    let grant_values = |grant: Grant| {
        let object = grant.object.map_or(Uuid::nil(), |object| object.0);
        [account.0.into(), grant.object_type.number().into(), object.into()]
    };
    match change {
        AccountChange::Settings { name, active, roles } => {
            let sql = "UPDATE accounts SET name = $1, active = $2, roles = $3 WHERE id = $4";
            let values = [name.into(), active.into(), roles.bits().into(), account.0.into()];
            execute(txn, sql, values).await?;
        }
        AccountChange::AddKey(key) => insert_key(txn, &key).await?,
        AccountChange::RemoveKey(key) => {
            let sql = "DELETE FROM api_keys WHERE id = $1 AND account = $2";
            execute(txn, sql, [key.0.into(), account.0.into()]).await?;
        }
        AccountChange::AddGrant(grant) => {
            let sql = "INSERT INTO grants (account, object_type, object) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            execute(txn, sql, grant_values(grant)).await?;
        }
        AccountChange::RemoveGrant(grant) => {
            let sql = "DELETE FROM grants WHERE account = $1 AND object_type = $2 AND object = $3";
            execute(txn, sql, grant_values(grant)).await?;
        }
    }
    Ok(())
}

async fn insert_account(txn: &DatabaseTransaction, account: &Account, now: Timestamp) -> Result<(), Error> {
    let version = version::bump(txn).await?;
    execute(
        txn,
        "INSERT INTO accounts (id, name, active, roles, created_at, version) VALUES ($1, $2, $3, $4, $5, $6)",
        [
            account.id.0.into(),
            account.name.as_str().into(),
            account.active.into(),
            account.roles.bits().into(),
            now.as_micros().into(),
            version.into(),
        ],
    )
    .await?;
    Ok(())
}

async fn insert_key(txn: &DatabaseTransaction, key: &ApiKey) -> Result<(), Error> {
    execute(
        txn,
        "INSERT INTO api_keys (id, account, name, hash, roles, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        [
            key.id.0.into(),
            key.account.0.into(),
            key.name.clone().into(),
            key.hash.to_vec().into(),
            key.roles.bits().into(),
            key.created_at.as_micros().into(),
        ],
    )
    .await?;
    Ok(())
}

/// Marks an account as changed. Returns whether there is such an account.
async fn touch(txn: &DatabaseTransaction, account: AccountId) -> Result<bool, Error> {
    let version = version::bump(txn).await?;
    let values = [version.into(), account.0.into()];
    Ok(execute(txn, "UPDATE accounts SET version = $1 WHERE id = $2", values).await? > 0)
}

async fn find<C: ConnectionTrait>(connection: &C, id: AccountId) -> Result<Option<AccountRecord>, Error> {
    let found = load(connection, "WHERE a.id = $1", vec![id.0.into()], u64::MAX).await?;
    Ok(found.into_iter().next())
}

/// Accounts changed since that version.
pub(crate) async fn changed_since<C: ConnectionTrait>(
    connection: &C,
    version: i64,
) -> Result<Vec<AccountRecord>, Error> {
    load(connection, "WHERE a.version > $1", vec![version.into()], u64::MAX).await
}

async fn load<C: ConnectionTrait>(
    connection: &C,
    condition: &str,
    values: Vec<Value>,
    limit: u64,
) -> Result<Vec<AccountRecord>, Error> {
    let limit = limit.min(i64::MAX.unsigned_abs());
    let chosen = format!("SELECT * FROM accounts a {condition} ORDER BY a.id DESC LIMIT {limit}");
    let mut keys = grouped(
        all(
            connection,
            &format!("SELECT k.* FROM api_keys k JOIN ({chosen}) c ON c.id = k.account ORDER BY k.id DESC"),
            values.clone(),
        )
        .await?,
        api_key,
    )?;
    let mut grants = grouped(
        all(
            connection,
            &format!("SELECT g.* FROM grants g JOIN ({chosen}) c ON c.id = g.account ORDER BY g.object_type, g.object"),
            values.clone(),
        )
        .await?,
        grant,
    )?;
    let rows = all(connection, &chosen, values).await?;
    rows.iter()
        .map(|row| {
            let id = uuid(row, "id")?;
            let account = Account {
                id: AccountId(id),
                name: get(row, "name")?,
                active: get(row, "active")?,
                roles: Roles::from_bits(get(row, "roles")?),
                grants: grants.remove(&id).unwrap_or_default(),
            };
            let created_at = timestamp(row, "created_at")?;
            Ok(AccountRecord {
                account,
                keys: keys.remove(&id).unwrap_or_default(),
                created_at,
            })
        })
        .collect()
}

fn grouped<T>(
    rows: Vec<QueryResult>,
    read: impl Fn(&QueryResult) -> Result<T, Error>,
) -> Result<HashMap<Uuid, Vec<T>>, Error> {
    let mut groups: HashMap<Uuid, Vec<T>> = HashMap::new();
    for row in rows {
        groups.entry(uuid(&row, "account")?).or_default().push(read(&row)?);
    }
    Ok(groups)
}

fn api_key(row: &QueryResult) -> Result<ApiKey, Error> {
    let hash: Vec<u8> = get(row, "hash")?;
    Ok(ApiKey {
        id: KeyId(uuid(row, "id")?),
        account: AccountId(uuid(row, "account")?),
        name: get(row, "name")?,
        hash: hash
            .try_into()
            .map_err(|_length| corrupt("a key hash of another length"))?,
        roles: Roles::from_bits(get(row, "roles")?),
        created_at: timestamp(row, "created_at")?,
    })
}

fn grant(row: &QueryResult) -> Result<Grant, Error> {
    let number: i64 = get(row, "object_type")?;
    let object = uuid(row, "object")?;
    Ok(Grant {
        object_type: ObjectType::numbered(number).ok_or_else(|| corrupt("an unknown object type"))?,
        object: (!object.is_nil()).then_some(ObjectGuid(object)),
    })
}
