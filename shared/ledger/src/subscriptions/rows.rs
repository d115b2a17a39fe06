//! A subscription's row: the columns of its settings, as their declarations have them, and its own.

use crate::Error;
use crate::sql::{corrupt, execute, get, timestamp, uuid};
use herald_domain::delivery::Reason;
use herald_domain::id::{AccountId, SubscriptionId};
use herald_domain::signing::{AsymmetricKey, FormerKey, SigningKey};
use herald_domain::subscription::{Cell, Cells, Corrupt, Deactivation, Kind, Settings, Subscription};
use herald_domain::time::Timestamp;
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::sync::LazyLock;

/// The columns that are no settings', in the order of [`own_values`].
const OWN: [&str; 15] = [
    "id",
    "owner",
    "signing_key",
    "asymmetric_key",
    "former_key",
    "former_asymmetric_key",
    "former_key_until",
    "created_at",
    "updated_at",
    "open_from",
    "open_from_version",
    "deactivated_at",
    "deactivation_reason",
    "deleted",
    "version",
];

/// `SELECT` and all columns, those of the settings first, as [`subscription`] reads them.
pub(super) static SELECT: LazyLock<String> = LazyLock::new(|| {
    let settings = Settings::columns().map(|column| column.name);
    let all: Vec<_> = settings.chain(OWN).collect();
    format!("SELECT {} FROM subscriptions", all.join(", "))
});

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let columns = written();
    let values: Vec<_> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    format!(
        "INSERT INTO subscriptions ({}) VALUES ({})",
        columns.join(", "),
        values.join(", ")
    )
});

/// The id, which comes first, says which row.
static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let columns = written();
    let set: Vec<_> = (1..).zip(&columns).map(|(n, name)| format!("{name} = ${n}")).collect();
    format!("UPDATE subscriptions SET {} WHERE id = $1", set[1..].join(", "))
});

/// The columns in the order of [`values`].
fn written() -> Vec<&'static str> {
    let settings = Settings::columns().map(|column| column.name);
    OWN.into_iter().chain(settings).collect()
}

/// Adds a row.
pub(super) async fn insert<C: ConnectionTrait>(
    connection: &C,
    subscription: &Subscription,
    version: i64,
) -> Result<(), Error> {
    execute(connection, &INSERT, values(subscription, version)).await?;
    Ok(())
}

/// Writes a row that is there.
pub(super) async fn update<C: ConnectionTrait>(
    connection: &C,
    subscription: &Subscription,
    version: i64,
) -> Result<(), Error> {
    match execute(connection, &UPDATE, values(subscription, version)).await? {
        1 => Ok(()),
        _ => Err(corrupt("a subscription that was read is not there")),
    }
}

fn values(subscription: &Subscription, version: i64) -> Vec<Value> {
    let settings = subscription.settings.to_cells();
    let mut values = Vec::with_capacity(OWN.len() + settings.len());
    values.extend(own_values(subscription, version));
    values.extend(settings.into_iter().map(value));
    values
}

fn own_values(subscription: &Subscription, version: i64) -> [Value; OWN.len()] {
    let former = subscription.former_key.as_deref();
    let seed = |key: &AsymmetricKey| key.seed().to_vec();
    let deactivated = subscription.deactivated;
    [
        subscription.id.0.into(),
        subscription.owner.0.into(),
        subscription.key.as_bytes().to_vec().into(),
        subscription.asymmetric_key.as_ref().map(seed).into(),
        former.map(|former| former.key.as_bytes().to_vec()).into(),
        former.and_then(|former| former.asymmetric.as_ref()).map(seed).into(),
        former.map(|former| former.until.as_micros()).into(),
        subscription.created_at.as_micros().into(),
        subscription.updated_at.as_micros().into(),
        subscription.open_from.as_micros().into(),
        subscription.open_from_version.into(),
        deactivated.map(|why| why.at.as_micros()).into(),
        deactivated.map(|why| why.reason.name().to_owned()).into(),
        subscription.deleted.into(),
        version.into(),
    ]
}

/// Reads a row, see [`SELECT`].
pub(super) fn subscription(row: &QueryResult) -> Result<Subscription, Error> {
    let settings = settings(row)?;
    let former_until = get::<Option<i64>>(row, "former_key_until")?;
    let former = get::<Option<Vec<u8>>>(row, "former_key")?.zip(former_until);
    let former_asymmetric = asymmetric(row, "former_asymmetric_key")?;
    let deactivated_at = get::<Option<i64>>(row, "deactivated_at")?;
    let reason: Option<String> = get(row, "deactivation_reason")?;
    let deactivated = deactivated_at.zip(reason.as_deref().and_then(Reason::named));
    Ok(Subscription {
        id: SubscriptionId(uuid(row, "id")?),
        owner: AccountId(uuid(row, "owner")?),
        key: SigningKey::from_bytes(get(row, "signing_key")?),
        asymmetric_key: asymmetric(row, "asymmetric_key")?,
        former_key: former.map(|(key, until)| {
            Box::new(FormerKey {
                key: SigningKey::from_bytes(key),
                asymmetric: former_asymmetric,
                until: Timestamp::from_micros(until),
            })
        }),
        created_at: timestamp(row, "created_at")?,
        updated_at: timestamp(row, "updated_at")?,
        open_from: timestamp(row, "open_from")?,
        open_from_version: get(row, "open_from_version")?,
        // A version that does not know of it leaves it where it activates.
        deactivated: deactivated
            .filter(|_| !settings.active)
            .map(|(at, reason)| Deactivation {
                at: Timestamp::from_micros(at),
                reason,
            }),
        deleted: get(row, "deleted")?,
        settings,
    })
}

fn asymmetric(row: &QueryResult, column: &str) -> Result<Option<AsymmetricKey>, Error> {
    let Some(seed) = get::<Option<Vec<u8>>>(row, column)? else {
        return Ok(None);
    };
    let seed = seed
        .try_into()
        .map_err(|_length| corrupt("an Ed25519 seed of another length"))?;
    Ok(Some(AsymmetricKey::from_seed(seed)))
}

/// The settings in a row, see [`SELECT`].
fn settings(row: &QueryResult) -> Result<Settings, Error> {
    let cells = Settings::columns()
        .enumerate()
        .map(|(n, column)| cell(row, n, column.kind));
    let cells = cells.collect::<Result<_, Error>>()?;
    Settings::from_cells(&mut Cells::new(cells)).map_err(|Corrupt(what)| corrupt(what))
}

fn cell(row: &QueryResult, n: usize, kind: Kind) -> Result<Cell, Error> {
    Ok(match kind {
        Kind::Boolean => Cell::Boolean(row.try_get_by_index(n)?),
        Kind::Small => Cell::Small(row.try_get_by_index(n)?),
        Kind::Integer => Cell::Integer(row.try_get_by_index(n)?),
        Kind::Big => Cell::Big(row.try_get_by_index(n)?),
        Kind::Real => Cell::Real(row.try_get_by_index(n)?),
        Kind::Text => Cell::Text(row.try_get_by_index(n)?),
        Kind::Guid => Cell::Guid(row.try_get_by_index(n)?),
    })
}

fn value(cell: Cell) -> Value {
    match cell {
        Cell::Boolean(value) => value.into(),
        Cell::Small(value) => value.into(),
        Cell::Integer(value) => value.into(),
        Cell::Big(value) => value.into(),
        Cell::Real(value) => value.into(),
        Cell::Text(value) => value.into(),
        Cell::Guid(value) => value.into(),
    }
}
