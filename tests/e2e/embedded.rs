//! What is about the default of one process on one file, whatever stack the other scenarios run on.
//! `tests/run` leaves these out where it runs the scenarios on RabbitMQ and PostgreSQL.

mod copies;
mod demo;
mod descriptors;
mod output;
mod readme;
mod starting;

use herald_tests::herald::Builder;
use herald_tests::{Herald, Stack};

fn embedded() -> Builder {
    Herald::builder().stack(Stack::Embedded)
}
