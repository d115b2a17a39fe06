//! What the numbers were measured on.

use crate::event::Template;
use crate::generator::CONNECTIONS;
use anyhow::Context;
use herald_tests::binary::{binary, command};
use herald_tests::services::{Servers, query};
use std::io::Write;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A list of it, as Markdown.
pub(crate) async fn describe(servers: &Servers) -> anyhow::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let processor = after("/proc/cpuinfo", "model name")?;
    let memory = after("/proc/meminfo", "MemTotal")?;
    let memory: u64 = memory.trim_end_matches(" kB").parse()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    let sync = sync_time()?.as_secs_f64() * 1e3;
    let overview = servers.rabbitmq.management().try_get("/overview").await;
    let overview = overview.context("RabbitMQ's overview")?;
    let version = |name: &str| overview[name].as_str().unwrap_or("?").to_owned();
    let postgres = query(&servers.postgres.url(), "SHOW server_version");
    let fsync = query(&servers.postgres.url(), "SHOW fsync");
    let path = binary();
    let herald = command(&path).arg("--version").output()?;
    Ok(format!(
        "- {cores} cores, {processor}, {} GiB of memory, Linux {}\n\
         - a write of 4 KiB is on the disk after {sync:.2} ms (median of 100), in {}\n\
         - RabbitMQ {} on Erlang {}, PostgreSQL {postgres} with fsync {fsync}, both with default settings\n\
         - {} ({})\n\
         - events of {} bytes over {CONNECTIONS} connections\n\
         - the machine's load when it began: {}\n",
        memory >> 20,
        kernel.trim(),
        std::env::temp_dir().display(),
        version("rabbitmq_version"),
        version("erlang_version"),
        String::from_utf8_lossy(&herald.stdout).trim(),
        path.display(),
        Template::new(Uuid::nil()).len(),
        load.join(", "),
    ))
}

/// What stands behind a name in a file of names and values.
fn after(file: &str, name: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    Ok(value.map_or("?", |(_, value)| value.trim()).to_owned())
}

/// How long the disk takes for what every acceptance waits for.
fn sync_time() -> anyhow::Result<Duration> {
    let sandbox = herald_tests::sandbox::Sandbox::new("herald-bench-");
    let mut file = std::fs::File::create(sandbox.path().join("written"))?;
    let mut times = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("there are times")
}
