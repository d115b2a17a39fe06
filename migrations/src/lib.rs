//! The ledger's schema. Each migration is one SQL file per database, says why it is as it is, and is
//! never changed once it has been released.

use sea_orm_migration::prelude::*;

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
            Box::new(Migration {
                name: "0011_rejected_by_account",
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
        ]
    }

    fn migration_table_name() -> DynIden {
        "herald_migrations".into_iden()
    }
}

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
        let sql = match manager.get_database_backend() {
            sea_orm::DbBackend::Postgres => self.postgres,
            _ => self.sqlite,
        };
        if !sql.is_empty() {
            manager.get_connection().execute_unprepared(sql).await?;
        }
        Ok(())
    }
}
