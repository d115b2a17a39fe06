//! Accounts, their keys and grants. A change of any of them is a change of the account.

use crate::sql::{all, corrupt, execute, get, one, timestamp, uuid};
use crate::{Error, Ledger, registry};
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
    /// Its id.
    pub id: KeyId,
    /// Whose.
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

impl Ledger {
    /// Adds an account without keys.
    pub async fn create_account(&self, account: Account) -> Result<Timestamp, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                insert_account(txn, &account, now).await?;
                registry::log(txn, None, "account.create", &account.id.to_string(), now).await?;
                Ok(now)
            })
        })
        .await
    }

    /// Changes an account's name, activity and roles; whether there is such an account.
    pub async fn update_account(&self, account: Account) -> Result<bool, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                let version = registry::bump(txn).await?;
                let changed = execute(
                    txn,
                    "UPDATE accounts SET name = $1, active = $2, roles = $3, version = $4 WHERE id = $5",
                    [
                        account.name.as_str().into(),
                        account.active.into(),
                        account.roles.bits().into(),
                        version.into(),
                        account.id.0.into(),
                    ],
                )
                .await?;
                registry::log(txn, None, "account.update", &account.id.to_string(), now).await?;
                Ok(changed > 0)
            })
        })
        .await
    }

    /// Adds a key; whether there is such an account.
    pub async fn create_key(&self, key: ApiKey) -> Result<bool, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                if !touch(txn, key.account).await? {
                    return Ok(false);
                }
                insert_key(txn, &key).await?;
                registry::log(txn, None, "key.create", &key.id.to_string(), now).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Removes a key; whether there was one.
    pub async fn delete_key(&self, account: AccountId, key: KeyId) -> Result<bool, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                let values = [key.0.into(), account.0.into()];
                let deleted = execute(txn, "DELETE FROM api_keys WHERE id = $1 AND account = $2", values).await?;
                touch(txn, account).await?;
                registry::log(txn, None, "key.delete", &key.to_string(), now).await?;
                Ok(deleted > 0)
            })
        })
        .await
    }

    /// Gives a permission; giving it twice is giving it once. Whether there is such an account.
    pub async fn add_grant(&self, account: AccountId, grant: Grant) -> Result<bool, Error> {
        self.change_grant(
            account,
            grant,
            "grant.create",
            "INSERT INTO grants (account, object_type, object) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .await
    }

    /// Takes a permission; whether there is such an account.
    pub async fn remove_grant(&self, account: AccountId, grant: Grant) -> Result<bool, Error> {
        self.change_grant(
            account,
            grant,
            "grant.delete",
            "DELETE FROM grants WHERE account = $1 AND object_type = $2 AND object = $3",
        )
        .await
    }

    async fn change_grant(
        &self,
        account: AccountId,
        grant: Grant,
        action: &'static str,
        sql: &'static str,
    ) -> Result<bool, Error> {
        self.change(move |txn, now| {
            Box::pin(async move {
                if !touch(txn, account).await? {
                    return Ok(false);
                }
                let object = grant.object.map_or(Uuid::nil(), |object| object.0);
                execute(
                    txn,
                    sql,
                    [account.0.into(), grant.object_type.number().into(), object.into()],
                )
                .await?;
                registry::log(txn, None, action, &account.to_string(), now).await?;
                Ok(true)
            })
        })
        .await
    }

    /// One account.
    pub async fn account(&self, id: AccountId) -> Result<Option<AccountRecord>, Error> {
        let read = load(self.store.api(), "WHERE a.id = $1", vec![id.0.into()], u64::MAX);
        let found = self.store.ask(read).await?;
        Ok(found.into_iter().next())
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

    /// Adds the operator's account if it is not there, and `key` if the operator has none; whether the
    /// key was added.
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
                    let now = registry::change(txn, now).await?;
                    change(txn, now).await
                })
            })
            .await;
        self.signals.registry.notify_waiters();
        result
    }
}

async fn insert_account(txn: &DatabaseTransaction, account: &Account, now: Timestamp) -> Result<(), Error> {
    let version = registry::bump(txn).await?;
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

/// Marks an account as changed; whether there is such an account.
async fn touch(txn: &DatabaseTransaction, account: AccountId) -> Result<bool, Error> {
    let version = registry::bump(txn).await?;
    let values = [version.into(), account.0.into()];
    Ok(execute(txn, "UPDATE accounts SET version = $1 WHERE id = $2", values).await? > 0)
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
            &format!("SELECT g.* FROM grants g JOIN ({chosen}) c ON c.id = g.account"),
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
