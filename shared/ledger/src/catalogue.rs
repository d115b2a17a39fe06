//! Event types and object types that are registered. Every change bumps the registry's version in its own transaction,
//! as a change of subscriptions does.

mod packs;

use crate::sql::{all, corrupt, execute, for_values, get, one, timestamp};
use crate::{Error, Ledger, locks, version};
use herald_domain::catalogue::{
    EnateEvent, EventType, EventTypeDraft, EventTypeSpec, FIRST_REGISTERED, MAX_EVENT_TYPES, MAX_OBJECT_TYPES,
    ObjectType, ObjectTypeSpec, RegisteredType, Schema,
};
use herald_domain::event::Objects;
use herald_domain::id::{AccountId, EventId, EventUid};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseTransaction, QueryResult, Value};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Why the catalogue is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// It came with Herald.
    BuiltIn,
    /// A subscription names it.
    Subscribed,
    /// An event type asks for objects of it.
    Asked(String),
    /// It has that number already.
    Numbered(i16),
    /// The number is that object type's.
    Taken(String),
    /// There is no object type of that name any more.
    Unknown(String),
    /// There are as many as there may be.
    Full(usize),
    /// Every number was given to one that is or was there.
    Spent,
}

/// What a request to register something came to; whether it is new.
pub type Put<T, R = Conflict> = Result<(T, bool), R>;

/// What a request to delete something came to; nothing if there was none.
pub type Deleted<R = Conflict> = Option<Result<(), R>>;

/// An event as it is stored, for a dry run of a schema.
#[derive(Debug)]
pub struct StoredEvent {
    /// Its identity in the ledger.
    pub uid: EventUid,
    /// The producer's `Id`.
    pub id: EventId,
    /// Its `Objects`.
    pub objects: Objects,
    /// `Data`, to the byte.
    pub data: String,
}

/// How many of the newest events are looked through for those of one type.
const LOOKED_THROUGH: u64 = 100_000;

/// How many events one step of [`Ledger::newest_events`] reads.
pub const EVENTS_PAGE: u64 = 32;

impl Ledger {
    /// Registers an event type, or changes one, unless `check` refuses, which sees it as it is in the transaction, if it
    /// is there.
    pub async fn put_event_type<F, R>(
        &self,
        name: String,
        draft: EventTypeDraft,
        by: AccountId,
        check: F,
    ) -> Result<Put<EventTypeSpec, R>, Error>
    where
        F: FnOnce(Option<&EventTypeSpec>) -> Result<(), R> + Send + 'static,
        R: From<Conflict> + Send + 'static,
    {
        let put = self
            .store
            .write(move |txn, now| Box::pin(async move { put_event_type(txn, &name, draft, (by, now), check).await }));
        let put = put.await?;
        self.signals.registry.notify_waiters();
        Ok(put)
    }

    /// Deletes an event type, unless `check` refuses, which sees it as it is in the transaction; `None` if there was none.
    /// Its events stay.
    pub async fn delete_event_type<F, R>(&self, name: String, by: AccountId, check: F) -> Result<Deleted<R>, Error>
    where
        F: FnOnce(&EventTypeSpec) -> Result<(), R> + Send + 'static,
        R: From<Conflict> + Send + 'static,
    {
        let deleted = self.store.write(move |txn, now| {
            Box::pin(async move {
                let now = locks::change(txn, now).await?;
                let sql = "SELECT * FROM event_types WHERE name = $1 AND NOT deleted";
                let Some(row) = one(txn, sql, [name.as_str().into()]).await? else {
                    return Ok(None);
                };
                let spec = event_type_spec(&row)?;
                if spec.built_in {
                    return Ok(Some(Err(Conflict::BuiltIn.into())));
                }
                if let Err(refusal) = check(&spec) {
                    return Ok(Some(Err(refusal)));
                }
                // Names have no character that JSON would write otherwise.
                let sql = "SELECT 1 AS one FROM subscriptions WHERE NOT deleted AND webhook = 7 \
                           AND replace(event_types, $1, '') <> event_types LIMIT 1";
                if one(txn, sql, [format!("\"{name}\"").into()]).await?.is_some() {
                    return Ok(Some(Err(Conflict::Subscribed.into())));
                }
                let version = version::bump(txn).await?;
                let sql = "UPDATE event_types SET deleted = TRUE, updated_at = $1, version = $2 WHERE name = $3";
                execute(txn, sql, [now.as_micros().into(), version.into(), name.as_str().into()]).await?;
                version::log(txn, Some(by), "event-type.delete", &name, now).await?;
                Ok(Some(Ok(())))
            })
        });
        let deleted = deleted.await?;
        self.signals.registry.notify_waiters();
        Ok(deleted)
    }

    /// Registers an object type, with that number if one is given, unless `check` refuses, which sees it as it is in the
    /// transaction, if it is there.
    pub async fn put_object_type<F, R>(
        &self,
        name: String,
        kind: Option<ObjectType>,
        by: AccountId,
        check: F,
    ) -> Result<Put<ObjectTypeSpec, R>, Error>
    where
        F: FnOnce(Option<&ObjectTypeSpec>) -> Result<(), R> + Send + 'static,
        R: From<Conflict> + Send + 'static,
    {
        let put = self
            .store
            .write(move |txn, now| Box::pin(async move { put_object_type(txn, &name, kind, (by, now), check).await }));
        let put = put.await?;
        self.signals.registry.notify_waiters();
        Ok(put)
    }

    /// Deletes an object type, unless `check` refuses, which sees it as it is in the transaction; `None` if there was none.
    pub async fn delete_object_type<F, R>(&self, name: String, by: AccountId, check: F) -> Result<Deleted<R>, Error>
    where
        F: FnOnce(&ObjectTypeSpec) -> Result<(), R> + Send + 'static,
        R: From<Conflict> + Send + 'static,
    {
        let deleted = self.store.write(move |txn, now| {
            Box::pin(async move {
                let now = locks::change(txn, now).await?;
                let sql = "SELECT * FROM object_types WHERE name = $1 AND NOT deleted";
                let Some(row) = one(txn, sql, [name.as_str().into()]).await? else {
                    return Ok(None);
                };
                let spec = object_type_spec(&row)?;
                if let Err(refusal) = check(&spec) {
                    return Ok(Some(Err(refusal)));
                }
                let sql = "SELECT 1 AS one FROM subscriptions WHERE NOT deleted AND object_type = $1 LIMIT 1";
                if one(txn, sql, [spec.kind.number().into()]).await?.is_some() {
                    return Ok(Some(Err(Conflict::Subscribed.into())));
                }
                let sql =
                    "SELECT name FROM event_types WHERE NOT deleted AND replace(objects, $1, '') <> objects LIMIT 1";
                if let Some(row) = one(txn, sql, [format!("\"{name}\"").into()]).await? {
                    return Ok(Some(Err(Conflict::Asked(get(&row, "name")?).into())));
                }
                let version = version::bump(txn).await?;
                let sql = "UPDATE object_types SET deleted = TRUE, version = $1 WHERE name = $2";
                execute(txn, sql, [version.into(), name.as_str().into()]).await?;
                version::log(txn, Some(by), "object-type.delete", &name, now).await?;
                Ok(Some(Ok(())))
            })
        });
        let deleted = deleted.await?;
        self.signals.registry.notify_waiters();
        Ok(deleted)
    }

    /// The newest events of a type that are older than `before`, newest first, at most [`EVENTS_PAGE`]; of the newest
    /// hundred thousand of all.
    pub async fn newest_events(&self, kind: &EventType, before: Option<EventUid>) -> Result<Vec<StoredEvent>, Error> {
        let before = before.map_or(Uuid::max(), |uid| uid.0);
        let sql = format!(
            "SELECT uid, id, objects, data FROM events WHERE uid < $1 AND type = $2 AND uid >= coalesce(\
             (SELECT uid FROM events ORDER BY uid DESC LIMIT 1 OFFSET {LOOKED_THROUGH}), $3) \
             ORDER BY uid DESC LIMIT {EVENTS_PAGE}"
        );
        let values = [before.into(), kind.code().into(), Uuid::nil().into()];
        let rows = self.store.ask(all(self.store.api(), &sql, values)).await?;
        let event = |row: &QueryResult| {
            Ok(StoredEvent {
                uid: EventUid(get(row, "uid")?),
                id: EventId(get(row, "id")?),
                objects: Objects::from_json(&get::<String>(row, "objects")?)
                    .map_err(|_faults| corrupt("malformed objects"))?,
                data: get(row, "data")?,
            })
        };
        rows.iter().map(event).collect()
    }
}

async fn put_event_type<R: From<Conflict>>(
    txn: &DatabaseTransaction,
    name: &str,
    draft: EventTypeDraft,
    (by, now): (AccountId, Timestamp),
    check: impl FnOnce(Option<&EventTypeSpec>) -> Result<(), R>,
) -> Result<Put<EventTypeSpec, R>, Error> {
    let now = locks::change(txn, now).await?;
    let there = one(txn, "SELECT * FROM event_types WHERE name = $1", [name.into()]).await?;
    let there = there.as_ref().map(event_type_spec).transpose()?;
    if there.as_ref().is_some_and(|spec| spec.built_in) {
        return Ok(Err(Conflict::BuiltIn.into()));
    }
    if let Err(refusal) = check(there.as_ref().filter(|spec| !spec.deleted)) {
        return Ok(Err(refusal));
    }
    for object in &draft.objects {
        let sql = "SELECT 1 AS one FROM object_types WHERE name = $1 AND NOT deleted";
        let is_enate = ObjectType::enate_named(object).is_some() || &**object == "Communication";
        if !is_enate && one(txn, sql, [(**object).into()]).await?.is_none() {
            return Ok(Err(Conflict::Unknown(object.to_string()).into()));
        }
    }
    let is_new = there.as_ref().is_none_or(|spec| spec.deleted);
    let sql = "SELECT count(*) AS n FROM event_types WHERE NOT deleted AND NOT built_in";
    let count = one(txn, sql, []).await?;
    let count: i64 = count.map_or(Ok(0), |row| get(&row, "n"))?;
    if is_new && usize::try_from(count).is_ok_and(|count| count >= MAX_EVENT_TYPES) {
        return Ok(Err(Conflict::Full(MAX_EVENT_TYPES).into()));
    }
    let kind = match &there {
        Some(spec) => spec.kind.clone(),
        None => match new_kind(txn, name).await? {
            Some(kind) => kind,
            None => return Ok(Err(Conflict::Spent.into())),
        },
    };
    let spec = EventTypeSpec {
        kind,
        draft,
        built_in: false,
        deleted: false,
        created_at: there.filter(|_| !is_new).map_or(now, |spec| spec.created_at),
        updated_at: now,
    };
    let version = version::bump(txn).await?;
    save_event_type(txn, &spec, version).await?;
    version::log(txn, Some(by), "event-type.put", name, now).await?;
    Ok(Ok((spec, is_new)))
}

async fn save_event_type(txn: &DatabaseTransaction, spec: &EventTypeSpec, version: i64) -> Result<(), Error> {
    let draft = &spec.draft;
    let objects = draft
        .objects
        .iter()
        .map(|name| &**name)
        .collect::<serde_json::Value>()
        .to_string();
    execute(
        txn,
        "INSERT INTO event_types (code, name, description, objects, schema, example, archived, built_in, deleted, \
         created_at, updated_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, FALSE, $9, $10, $11) \
         ON CONFLICT (code) DO UPDATE SET description = excluded.description, objects = excluded.objects, \
         schema = excluded.schema, example = excluded.example, archived = excluded.archived, \
         built_in = excluded.built_in, deleted = FALSE, created_at = excluded.created_at, updated_at = excluded.updated_at, version = excluded.version",
        [
            spec.kind.code().into(),
            spec.kind.name().into(),
            draft.description.clone().into(),
            objects.into(),
            draft.schema.as_ref().map(|schema| schema.text().to_owned()).into(),
            draft.example.as_ref().map(ToString::to_string).into(),
            draft.archived.into(),
            spec.built_in.into(),
            spec.created_at.as_micros().into(),
            spec.updated_at.as_micros().into(),
            version.into(),
        ],
    )
    .await?;
    Ok(())
}

async fn put_object_type<R: From<Conflict>>(
    txn: &DatabaseTransaction,
    name: &str,
    wanted: Option<ObjectType>,
    (by, now): (AccountId, Timestamp),
    check: impl FnOnce(Option<&ObjectTypeSpec>) -> Result<(), R>,
) -> Result<Put<ObjectTypeSpec, R>, Error> {
    let now = locks::change(txn, now).await?;
    let there = one(txn, "SELECT * FROM object_types WHERE name = $1", [name.into()]).await?;
    let there = there.as_ref().map(object_type_spec).transpose()?;
    if let Err(refusal) = check(there.as_ref().filter(|spec| !spec.deleted)) {
        return Ok(Err(refusal));
    }
    let is_new = there.as_ref().is_none_or(|spec| spec.deleted);
    let count = one(txn, "SELECT count(*) AS n FROM object_types WHERE NOT deleted", []).await?;
    let count: i64 = count.map_or(Ok(0), |row| get(&row, "n"))?;
    if is_new && usize::try_from(count).is_ok_and(|count| count >= MAX_OBJECT_TYPES) {
        return Ok(Err(Conflict::Full(MAX_OBJECT_TYPES).into()));
    }
    let kind = match (&there, wanted) {
        (Some(spec), Some(wanted)) if spec.kind != wanted => {
            return Ok(Err(Conflict::Numbered(spec.kind.number()).into()));
        }
        (Some(spec), _) => spec.kind,
        (None, Some(wanted)) => {
            let sql = "SELECT name FROM object_types WHERE number = $1";
            if let Some(row) = one(txn, sql, [wanted.number().into()]).await? {
                return Ok(Err(Conflict::Taken(get(&row, "name")?).into()));
            }
            wanted
        }
        (None, None) => match next_free(txn).await? {
            Some(kind) => kind,
            None => return Ok(Err(Conflict::Spent.into())),
        },
    };
    let spec = ObjectTypeSpec {
        kind,
        name: name.into(),
        deleted: false,
    };
    if is_new {
        let version = version::bump(txn).await?;
        let sql = "INSERT INTO object_types (number, name, deleted, version) VALUES ($1, $2, FALSE, $3) \
                   ON CONFLICT (number) DO UPDATE SET deleted = FALSE, version = excluded.version";
        execute(txn, sql, [kind.number().into(), name.into(), version.into()]).await?;
        version::log(txn, Some(by), "object-type.put", name, now).await?;
    }
    Ok(Ok((spec, is_new)))
}

/// A new event type of that name. It has the number behind the greatest that was ever given, if there is one.
async fn new_kind(txn: &DatabaseTransaction, name: &str) -> Result<Option<EventType>, Error> {
    let row = one(txn, "SELECT max(code) AS n FROM event_types", []).await?;
    let greatest: Option<i16> = row.map_or(Ok(None), |row| get(&row, "n"))?;
    let code = greatest.map_or(Some(FIRST_REGISTERED), |greatest| greatest.checked_add(1));
    let name = name.into();
    Ok(code.map(|code| EventType::Registered(Arc::new(RegisteredType { code, name }))))
}

/// The least number of an object type that none ever had.
async fn next_free(txn: &DatabaseTransaction) -> Result<Option<ObjectType>, Error> {
    let sql = "SELECT min(n) AS n FROM (SELECT CAST($1 AS integer) AS n UNION ALL SELECT number + 1 FROM object_types) c \
               WHERE NOT EXISTS (SELECT 1 FROM object_types o WHERE o.number = c.n)";
    let row = one(txn, sql, [i32::from(FIRST_REGISTERED).into()]).await?;
    let free: Option<i32> = row.map_or(Ok(None), |row| get(&row, "n"))?;
    Ok(free.and_then(|free| ObjectType::numbered(free.into())))
}

/// Those of these names of which there is an event type.
pub(crate) async fn event_types_there(txn: &DatabaseTransaction, names: Vec<&str>) -> Result<HashSet<String>, Error> {
    let (enate, registered): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| EnateEvent::named(name).is_some());
    let registered: Vec<Value> = registered.into_iter().map(Value::from).collect();
    let sql = "SELECT name FROM event_types WHERE NOT deleted AND name";
    let mut there: HashSet<String> = enate.into_iter().map(str::to_owned).collect();
    for row in &for_values(txn, sql, registered, "").await? {
        there.insert(get(row, "name")?);
    }
    Ok(there)
}

/// Whether there is that object type.
pub(crate) async fn is_object_type(txn: &DatabaseTransaction, kind: ObjectType) -> Result<bool, Error> {
    let sql = "SELECT 1 AS one FROM object_types WHERE number = $1 AND NOT deleted";
    Ok(kind.enate_name().is_some() || one(txn, sql, [kind.number().into()]).await?.is_some())
}

/// The event types and object types that changed since that version, deleted ones included.
pub(crate) async fn changed_since<C: ConnectionTrait>(
    connection: &C,
    version: i64,
) -> Result<(Vec<EventTypeSpec>, Vec<ObjectTypeSpec>), Error> {
    let types = all(
        connection,
        "SELECT * FROM event_types WHERE version > $1",
        [version.into()],
    )
    .await?;
    let objects = all(
        connection,
        "SELECT * FROM object_types WHERE version > $1",
        [version.into()],
    )
    .await?;
    let types = types.iter().map(event_type_spec).collect::<Result<_, _>>()?;
    let objects = objects.iter().map(object_type_spec).collect::<Result<_, _>>()?;
    Ok((types, objects))
}

/// A column `type`, and beside it `type_name` where it is registered: see [`TYPE_NAME`].
pub(crate) fn event_type(row: &QueryResult) -> Result<EventType, Error> {
    let code: i16 = get(row, "type")?;
    if let Some(event) = EnateEvent::coded(code) {
        return Ok(EventType::Enate(event));
    }
    let name: Option<String> = get(row, "type_name")?;
    let name = name.ok_or_else(|| corrupt("an unknown event type"))?.into();
    Ok(EventType::Registered(Arc::new(RegisteredType { code, name })))
}

/// The name of an event's type, where it is registered; a column of `events`.
pub(crate) const TYPE_NAME: &str =
    "CASE WHEN events.type >= 1000 THEN (SELECT name FROM event_types WHERE code = events.type) END AS type_name";

fn event_type_spec(row: &QueryResult) -> Result<EventTypeSpec, Error> {
    let name: String = get(row, "name")?;
    let objects: String = get(row, "objects")?;
    let schema: Option<String> = get(row, "schema")?;
    let example: Option<String> = get(row, "example")?;
    let objects: Vec<Box<str>> = serde_json::from_str(&objects).map_err(|_malformed| corrupt("malformed objects"))?;
    let example = example.map(|text| serde_json::from_str(&text)).transpose();
    Ok(EventTypeSpec {
        kind: EventType::Registered(Arc::new(RegisteredType {
            code: get(row, "code")?,
            name: name.into(),
        })),
        draft: EventTypeDraft {
            description: get(row, "description")?,
            objects,
            schema: schema.as_deref().map(Schema::registered),
            example: example.map_err(|_malformed| corrupt("a malformed example"))?,
            archived: get(row, "archived")?,
        },
        built_in: get(row, "built_in")?,
        deleted: get(row, "deleted")?,
        created_at: timestamp(row, "created_at")?,
        updated_at: timestamp(row, "updated_at")?,
    })
}

fn object_type_spec(row: &QueryResult) -> Result<ObjectTypeSpec, Error> {
    let number: i16 = get(row, "number")?;
    let name: String = get(row, "name")?;
    Ok(ObjectTypeSpec {
        kind: ObjectType::numbered(number.into()).ok_or_else(|| corrupt("an impossible object type"))?,
        name: name.into(),
        deleted: get(row, "deleted")?,
    })
}
