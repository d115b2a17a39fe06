//! The ledger's schema. Each migration is one SQL file per database, says why it is as it is, and is
//! never changed once it has been released.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

/// Every migration, in order.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Migration {
                name: "0001_ledger",
                sqlite: include_str!("sqlite/0001_ledger.sql"),
                postgres: include_str!("postgres/0001_ledger.sql"),
            }),
            Box::new(Migration {
                name: "0002_workers",
                sqlite: include_str!("sqlite/0002_workers.sql"),
                // There from the first migration on.
                postgres: "",
            }),
            Box::new(Migration {
                name: "0003_at_once",
                // Within one process a statement is no round trip.
                sqlite: "",
                postgres: include_str!("postgres/0003_at_once.sql"),
            }),
            Box::new(Migration {
                name: "0004_retention",
                sqlite: include_str!("sqlite/0004_retention.sql"),
                postgres: include_str!("postgres/0004_retention.sql"),
            }),
            Box::new(Migration {
                name: "0005_openings",
                sqlite: include_str!("sqlite/0005_openings.sql"),
                postgres: include_str!("postgres/0005_openings.sql"),
            }),
            Box::new(Migration {
                name: "0007_owners_rights",
                // A file has no owners.
                sqlite: "",
                postgres: include_str!("postgres/0007_owners_rights.sql"),
            }),
            Box::new(IndexMigration {
                name: "0011_rejected_by_account",
                index: "rejected_events_by_account",
                sqlite: include_str!("sqlite/0011_rejected_by_account.sql"),
                postgres: include_str!("postgres/0011_rejected_by_account.sql"),
            }),
            Box::new(Migration {
                name: "0012_former_keys",
                sqlite: include_str!("sqlite/0012_former_keys.sql"),
                postgres: include_str!("postgres/0012_former_keys.sql"),
            }),
            Box::new(Migration {
                name: "0013_noted_versions",
                // No other version writes the file once this one has opened it.
                sqlite: "",
                postgres: include_str!("postgres/0013_noted_versions.sql"),
            }),
            Box::new(Migration {
                name: "0014_owners_path",
                // A file has no owners.
                sqlite: "",
                postgres: include_str!("postgres/0014_owners_path.sql"),
            }),
            Box::new(Migration {
                name: "0015_by_index",
                // It has no plans that stay and no dead rows.
                sqlite: "",
                postgres: include_str!("postgres/0015_by_index.sql"),
            }),
            Box::new(Migration {
                name: "0016_catalogue",
                sqlite: include_str!("sqlite/0016_catalogue.sql"),
                postgres: include_str!("postgres/0016_catalogue.sql"),
            }),
            Box::new(Migration {
                name: "0017_signatures",
                sqlite: include_str!("sqlite/0017_signatures.sql"),
                postgres: include_str!("postgres/0017_signatures.sql"),
            }),
        ]
    }

    fn migration_table_name() -> DynIden {
        "herald_migrations".into_iden()
    }
}

/// What is done in one transaction.
struct Migration {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

impl MigrationName for Migration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
#[expect(elided_lifetimes_in_paths, reason = "the trait's signature")]
impl MigrationTrait for Migration {
    /// On SQLite as well: a half of one that was interrupted would never be completed.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        let sql = match manager.get_database_backend() {
            DbBackend::Postgres => {
                // Whoever wants a table waits behind a change of it that waits. So it gives up soon, and is tried again.
                database.execute_unprepared("SET LOCAL lock_timeout = '2s'").await?;
                self.postgres
            }
            _ => self.sqlite,
        };
        if !sql.is_empty() {
            database.execute_unprepared(sql).await?;
        }
        Ok(())
    }
}

/// An index of a table that may be large, and that others write all the time. PostgreSQL makes it beside them, which it
/// does in no transaction: so each file is one statement, and may come again.
struct IndexMigration {
    name: &'static str,
    index: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

impl MigrationName for IndexMigration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
#[expect(elided_lifetimes_in_paths, reason = "the trait's signature")]
impl MigrationTrait for IndexMigration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let database = manager.get_connection();
        if manager.get_database_backend() != DbBackend::Postgres {
            database.execute_unprepared(self.sqlite).await?;
            return Ok(());
        }
        // It waits for the transactions that are open, and nobody waits for it. But not for ever: in a former version
        // whoever is to migrate next does so in a statement, which waits for this in its turn.
        database.execute_unprepared("SET lock_timeout = '60s'").await?;
        let made = self.make_beside_others(database).await;
        let set_back = database.execute_unprepared("SET lock_timeout = 0").await;
        made?;
        set_back.map(drop)
    }
}

impl IndexMigration {
    async fn make_beside_others(&self, database: &impl ConnectionTrait) -> Result<(), DbErr> {
        let index = self.index;
        // One whose making was interrupted stays, is written and never read.
        let interrupted = format!("SELECT FROM pg_index WHERE indexrelid = to_regclass('{index}') AND NOT indisvalid");
        let interrupted = Statement::from_string(DbBackend::Postgres, interrupted);
        if database.query_one_raw(interrupted).await?.is_some() {
            let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {index}");
            database.execute_unprepared(&drop).await?;
        }
        database.execute_unprepared(self.postgres).await?;
        Ok(())
    }
}
