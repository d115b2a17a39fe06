use super::places::MAX_WHEN_FULL;
use super::*;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Server {
    address: std::net::SocketAddr,
    close: CancellationToken,
    metrics: prometheus::Registry,
    _routes: watch::Sender<Router>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(most: usize) -> Self {
        let app = Router::new()
            .route("/health/live", get(async || "live"))
            .route("/", get(async || "served"))
            .route("/refused", post(async || (axum::http::StatusCode::UNAUTHORIZED, "no")))
            .layer(axum::middleware::from_fn(crate::process::unread::read_on));
        let (routes, app) = watch::channel(app);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let close = CancellationToken::new();
        let (places, metrics) = (Places::new(most).unwrap(), prometheus::Registry::new());
        places.register(&metrics).unwrap();
        let task = tokio::spawn(serve(listener, places, app, close.clone()));
        Self {
            address,
            close,
            metrics,
            _routes: routes,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Open connections, how many may be, and how many were refused.
    fn counted(&self) -> [String; 3] {
        let families = self.metrics.gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            (metric.get_gauge().get_value() + metric.get_counter().get_value()).to_string()
        };
        ["", "_limit", "_refused_total"].map(|what| value(&format!("herald_http_connections{what}")))
    }

    async fn end(self) {
        self.close.cancel();
        self.task.await.unwrap();
    }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: herald\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// What has been answered when the text ends with that.
async fn answer(stream: &mut TcpStream, ends_with: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).ends_with(ends_with) {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8(answer).unwrap()
}

async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn beyond_the_most_connections_only_health_is_served() {
    let server = Server::start(2).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect().await;
        ask(&mut stream, "/").await;
        answer(&mut stream, "served").await;
        kept.push(stream);
    }
    assert_eq!(server.counted(), ["2", "2", "0"]);
    let mut beyond = server.connect().await;
    ask(&mut beyond, "/").await;
    let refused = to_the_end(&mut beyond).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.contains("application/problem+json") && refused.contains("retry-after: 1"),
        "{refused}"
    );
    let mut probe = server.connect().await;
    ask(&mut probe, "/health/live").await;
    assert!(to_the_end(&mut probe).await.ends_with("live"));
    assert_eq!(server.counted(), ["2", "2", "2"]);
    // Those that are served go on, and their end makes room.
    ask(&mut kept[0], "/").await;
    answer(&mut kept[0], "served").await;
    drop(kept);
    loop {
        let mut stream = server.connect().await;
        ask(&mut stream, "/").await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        if first.ends_with(b"200") {
            break;
        }
    }
    server.end().await;
}

#[tokio::test]
async fn however_many_say_nothing_there_is_room_again() {
    let server = Server::start(1).await;
    let connections = (0..MAX_WHEN_FULL + 8).map(|_| server.connect());
    let silent = futures_util::future::join_all(connections).await;
    // Each place beyond the most is given up after two seconds.
    let mut probe = server.connect().await;
    ask(&mut probe, "/health/live").await;
    assert!(to_the_end(&mut probe).await.ends_with("live"));
    drop(silent);
    server.end().await;
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_sees_why_it_was_refused() {
    let server = Server::start(8).await;
    let body = vec![b'x'; 7_000_000];
    for framing in ["Content-Length: 7000000", "Transfer-Encoding: chunked"] {
        let mut stream = server.connect().await;
        let head = format!("POST /refused HTTP/1.1\r\nHost: herald\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if framing.starts_with('T') {
            stream.write_all(b"6acfc0\r\n").await.unwrap();
        }
        stream.write_all(&body).await.unwrap();
        if framing.starts_with('T') {
            stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        }
        let refused = answer(&mut stream, "no").await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{framing}: {refused}");
    }
    // One that waits to be asked for its body is not asked.
    let mut stream = server.connect().await;
    let head = "POST /refused HTTP/1.1\r\nHost: herald\r\nContent-Length: 7000000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let refused = answer(&mut stream, "no").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    server.end().await;
}

#[test]
fn deliveries_keep_three_quarters_of_the_descriptors() {
    assert_eq!(most_connections(1024), 256);
    assert_eq!(most_connections(1 << 20), MAX_CONNECTIONS);
    assert_eq!(most_connections(16), 8);
}
