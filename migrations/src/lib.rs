//! The ledger's schema. Each migration is one SQL file per database, says why it is as it is, and is
//! never changed once it has been released.

use sea_orm_migration::prelude::*;

/// Every migration, in order.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Ledger)]
    }

    fn migration_table_name() -> DynIden {
        "herald_migrations".into_iden()
    }
}

struct Ledger;

impl MigrationName for Ledger {
    fn name(&self) -> &'static str {
        "0001_ledger"
    }
}

#[async_trait::async_trait]
#[expect(elided_lifetimes_in_paths, reason = "the trait's signature")]
impl MigrationTrait for Ledger {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .get_connection()
            .execute_unprepared(include_str!("sqlite/0001_ledger.sql"))
            .await?;
        Ok(())
    }
}
