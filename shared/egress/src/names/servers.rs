//! The name servers that are asked: those that Herald was given, or those of `/etc/resolv.conf`.
//!
//! That file and `/etc/hosts` are read again when they change. Of the file only the name servers matter, and
//! `edns0`: the host of a URL is a full name, so search domains and `ndots` do not apply (RFC 1535). A line
//! that is none is passed over with a warning, and the name servers beside it are used.

use futures_util::future::{Either, select};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// How long one question waits for its answer; one packet lost costs no more.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Questions after the first that was not answered.
const REPEATS: usize = 1;

/// How long an answer with addresses of one family waits for those of the other (RFC 8305, 3).
const OTHER_FAMILY: Duration = Duration::from_millis(50);

/// How long an answer is remembered at most, whatever its name servers say of it; a subscriber who moves
/// is found again by then.
const REMEMBERED: Duration = Duration::from_secs(30);

/// The same of the answer that there is no such name: somebody may be making it right now.
const ABSENCE_REMEMBERED: Duration = Duration::from_secs(5);

/// Answers that are remembered at a time, of each family.
const REMEMBERED_ANSWERS: u64 = 4096;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The most that is read of the file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Asks name servers.
#[derive(Debug)]
pub(super) struct Servers {
    source: Source,
    /// Questions that may be under way at a time.
    at_once: usize,
    current: Mutex<Current>,
}

#[derive(Debug)]
enum Source {
    Given(Vec<SocketAddr>),
    File(PathBuf),
}

#[derive(Debug)]
struct Current {
    resolvers: Resolvers,
    looked_at: Instant,
    stamps: [Option<Stamp>; 2],
}

/// A resolver for each family of addresses, so that one can be answered without the other.
#[derive(Debug, Clone)]
pub(super) struct Resolvers {
    servers: Arc<[IpAddr]>,
    v4: TokioResolver,
    v6: TokioResolver,
}

/// What differs when a file was changed or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok()?,
            bytes: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}

impl Servers {
    /// These, or the system's where there are none.
    pub(super) fn new(given: &[SocketAddr], at_once: usize) -> Result<Self, NetError> {
        if given.is_empty() {
            return Self::of_file(Path::new("/etc/resolv.conf"), at_once);
        }
        let source = Source::Given(given.to_vec());
        let stamps = source.stamps();
        let resolvers = source.read(at_once)?;
        Ok(Self::starting(source, resolvers, stamps, at_once))
    }

    fn of_file(path: &Path, at_once: usize) -> Result<Self, NetError> {
        let source = Source::File(path.to_owned());
        // Before it is read, so that a change meanwhile is seen.
        let stamps = source.stamps();
        let text = read(path).unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "the system's name servers cannot be read");
            String::new()
        });
        let resolvers = resolvers(&parse(&text), path, at_once)?;
        Ok(Self::starting(source, resolvers, stamps, at_once))
    }

    fn starting(source: Source, resolvers: Resolvers, stamps: [Option<Stamp>; 2], at_once: usize) -> Self {
        let current = Current {
            resolvers,
            looked_at: Instant::now(),
            stamps,
        };
        Self {
            source,
            at_once,
            current: Mutex::new(current),
        }
    }

    /// The resolvers to ask now.
    pub(super) fn resolvers(&self) -> Resolvers {
        self.resolvers_at(Instant::now())
    }

    fn resolvers_at(&self, now: Instant) -> Resolvers {
        // Nothing is left half done where this could panic.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.looked_at) >= LOOK_EVERY {
            current.looked_at = now;
            let stamps = self.source.stamps();
            if stamps != current.stamps {
                current.stamps = stamps;
                match self.source.read(self.at_once) {
                    Ok(resolvers) => {
                        let servers = &resolvers.servers;
                        tracing::info!(
                            ?servers,
                            "the system's name servers or /etc/hosts changed, and were read again"
                        );
                        current.resolvers = resolvers;
                    }
                    // It may be in the middle of being replaced, and is looked at again soon.
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the system's name servers changed and cannot be read; those before are asked"
                    ),
                }
            }
        }
        current.resolvers.clone()
    }
}

impl Source {
    fn stamps(&self) -> [Option<Stamp>; 2] {
        let file = match self {
            Self::Given(_) => None,
            Self::File(path) => Stamp::of(path),
        };
        [file, Stamp::of(Path::new("/etc/hosts"))]
    }

    fn read(&self, at_once: usize) -> Result<Resolvers, NetError> {
        match self {
            Self::Given(given) => {
                let servers = given.iter().map(|server| name_server(*server)).collect();
                Resolvers::new(servers, false, at_once)
            }
            Self::File(path) => resolvers(&parse(&read(path)?), path, at_once),
        }
    }
}

impl Resolvers {
    fn new(servers: Vec<NameServerConfig>, edns0: bool, at_once: usize) -> Result<Self, NetError> {
        let addresses = servers.iter().map(|server| server.ip).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let resolver = |strategy| {
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(config.clone(), provider);
            let options: &mut ResolverOpts = builder.options_mut();
            options.edns0 = edns0;
            options.timeout = QUESTION_TIMEOUT;
            options.attempts = REPEATS;
            options.ip_strategy = strategy;
            options.cache_size = REMEMBERED_ANSWERS;
            options.positive_max_ttl = Some(REMEMBERED);
            options.negative_max_ttl = Some(ABSENCE_REMEMBERED);
            options.max_active_requests = at_once;
            builder.build()
        };
        Ok(Self {
            servers: addresses,
            v4: resolver(LookupIpStrategy::Ipv4Only)?,
            v6: resolver(LookupIpStrategy::Ipv6Only)?,
        })
    }

    /// The addresses of a full name, IPv4 first: few machines have IPv6 alone, and many, containers above all,
    /// have IPv6 addresses that lead nowhere.
    pub(super) async fn look_up(self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let mut full = Name::from_ascii(name)?;
        full.set_fqdn(true);
        let ask = async |resolver: TokioResolver| -> Result<Vec<IpAddr>, NetError> {
            Ok(resolver.lookup_ip(full.clone()).await?.into_iter().collect())
        };
        let v4 = pin!(ask(self.v4));
        let v6 = pin!(ask(self.v6));
        let (v4, v6) = match select(v4, v6).await {
            Either::Left((Ok(v4), v6)) if !v4.is_empty() => {
                let v6 = timeout(OTHER_FAMILY, v6).await;
                (Ok(v4), v6.unwrap_or_else(|_elapsed| Ok(Vec::new())))
            }
            Either::Right((Ok(v6), v4)) if !v6.is_empty() => {
                let v4 = timeout(OTHER_FAMILY, v4).await;
                (v4.unwrap_or_else(|_elapsed| Ok(Vec::new())), Ok(v6))
            }
            Either::Left((v4, v6)) => (v4, v6.await),
            Either::Right((v6, v4)) => (v4.await, v6),
        };
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                Ok(v4)
            }
            (Ok(addresses), Err(_)) | (Err(_), Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

/// What matters of a `resolv.conf`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conf {
    servers: Vec<IpAddr>,
    edns0: bool,
    /// Lines that say nothing that could be used.
    odd: Vec<String>,
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str) -> Conf {
    let mut conf = Conf::default();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let mut words = line.split_whitespace();
        let used = match words.next() {
            Some("nameserver") => match words.next().map(str::parse) {
                Some(Ok(server)) => {
                    conf.servers.push(server);
                    true
                }
                Some(Err(_)) | None => false,
            },
            Some("options") => {
                conf.edns0 |= words.any(|option| option == "edns0");
                true
            }
            // Not for full names.
            Some("search" | "domain" | "sortlist" | "lookup" | "family") | None => true,
            Some(word) => word.starts_with(['#', ';']),
        };
        if !used {
            conf.odd.push(line.chars().take(100).collect());
        }
    }
    conf
}

fn resolvers(conf: &Conf, path: &Path, at_once: usize) -> Result<Resolvers, NetError> {
    let path = path.display();
    for line in &conf.odd {
        tracing::warn!(%path, line, "a line of the system's name servers is passed over");
    }
    let mut servers: Vec<_> = conf
        .servers
        .iter()
        .map(|server| NameServerConfig::udp_and_tcp(*server))
        .collect();
    if servers.is_empty() {
        // As the C library has it: where nothing is configured, this machine is asked.
        tracing::warn!(%path, "no name server is configured; names are looked up at 127.0.0.1");
        servers.push(NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into()));
    }
    Resolvers::new(servers, conf.edns0, at_once)
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "nameserver 127.0.0.53\n";

    fn servers_of(text: &str) -> Vec<String> {
        parse(text).servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_odd_line_leaves_the_name_servers() {
        let long = format!("search {}.test\n", "a".repeat(70));
        let odd = [
            "search --\n",
            "search a..b\n",
            &long,
            "search *.x\n",
            "nameserver fe80::1%eth0\n",
            "nameserver 127.0.0.53:53\n",
            "nameserver 300.1.1.1\n",
            "nameserver dns.test\n",
            "options timeout:0\n",
            "options timeout:x attempts:0 ndots:99\n",
            "domain\n",
            "search\n",
            "nameserver\n",
            "; x\n# y\n",
            "\0\n",
            "# \u{fffd}\n",
            "sortlist 130.155.160.0/255.255.240.0 x\n",
            "lookup file bind\nfamily inet4\n",
        ];
        for line in odd {
            assert_eq!(servers_of(&format!("{line}{GOOD}")), ["127.0.0.53"], "{line:?}");
            assert_eq!(servers_of(&format!("{GOOD}{line}")), ["127.0.0.53"], "{line:?}");
        }
        assert_eq!(parse("nameserver x\nnameserver\nnonsense\n").odd.len(), 3);
        assert_eq!(
            servers_of("\u{feff}nameserver\t::1 # local\r\nnameserver 9.9.9.9\r\n"),
            ["::1", "9.9.9.9"]
        );
        assert!(parse("options ndots:5 edns0 trust-ad").edns0);
    }

    proptest! {
        #[test]
        fn no_file_hides_a_name_server_on_a_line_of_its_own(before in "[\\PC\n]{0,200}", after in "[\\PC\n]{0,200}") {
            let text = format!("{before}\n{GOOD}{after}");
            prop_assert!(servers_of(&text).contains(&"127.0.0.53".to_owned()));
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        let servers = Servers::of_file(&path, 8).unwrap();
        let asked = |after| {
            let resolvers = servers.resolvers_at(Instant::now() + after);
            resolvers.servers[0].to_string()
        };
        assert_eq!(asked(Duration::ZERO), "127.0.0.53");
        std::fs::write(&path, "nameserver 127.0.0.154\n").unwrap();
        assert_eq!(asked(LOOK_EVERY), "127.0.0.154", "written anew");
        let other = folder.path().join("other");
        std::fs::write(&other, "nameserver 127.0.0.155\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(asked(2 * LOOK_EVERY), "127.0.0.155", "replaced");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(asked(3 * LOOK_EVERY), "127.0.0.155", "gone for now");
        std::fs::write(&path, "nameserver 127.0.0.156\n").unwrap();
        assert_eq!(asked(4 * LOOK_EVERY), "127.0.0.156", "there again");
    }
}
