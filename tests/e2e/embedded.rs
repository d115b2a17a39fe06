//! What is about the default of one process on one file, whatever stack the other scenarios run on.
//! `tests/run` leaves these out where it runs the scenarios on RabbitMQ and PostgreSQL.

mod copies;
mod demo;
mod described;
mod descriptors;
mod output;
mod readme;
mod receiving;
mod starting;

use herald_tests::herald::Builder;
use herald_tests::{Herald, Stack};

/// A file of the repository.
fn document(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(path).expect("it is in the repository")
}

fn embedded() -> Builder {
    Herald::builder().stack(Stack::Embedded)
}
