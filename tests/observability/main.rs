//! What operators look at: metrics, rules, alerts and dashboards, against a real Prometheus.
//!
//! | module | what it asks |
//! |---|---|
//! | `exposition` | does `/metrics` say what it said, as the conventions have it, from the start? |
//! | `rules` | does each alert fire when it should, and has it an entry in the runbook? |
//! | `dashboards` | does each panel say what it shows? |
//! | `live` | does every expression of every panel and rule find its data? |
//!
//! All of it needs Prometheus and its `promtool`, and a cluster the servers of `tests/with-services`.

mod dashboards;
mod exposition;
mod live;
mod prometheus;
mod rules;

use herald_tests::api::Api;
use herald_tests::herald::Builder;
use herald_tests::tls::Authority;
use herald_tests::{Herald, Stack};
use std::path::{Path, PathBuf};

/// A path below `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// The files of a folder below `deploy/`, with their text, in order.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(deploy(folder)).unwrap_or_else(|error| panic!("deploy/{folder}: {error}"));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "deploy/{folder} has no .{extension}");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Everything of that stack, with a file of authorities, so that its certificates' expiry is there too.
fn builder(stack: Stack, folder: &Path) -> Builder {
    let authorities = Authority::default().write_pem(folder);
    Herald::builder().stack(stack).arg("--egress-ca").arg(authorities)
}

/// What each process says at `/metrics`.
async fn expositions(herald: &Herald) -> Vec<String> {
    let mut texts = Vec::new();
    for address in herald.addresses() {
        let api = Api::new(&format!("http://{address}"), "").without_key();
        texts.push(api.get("/metrics").await.expect(200).text().to_owned());
    }
    texts
}
