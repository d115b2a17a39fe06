use super::*;
use herald_domain::delivery::AttemptError;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const STRAY: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

fn client() -> Client {
    let policy = Arc::new(EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Client::new(policy, &[], &[]).unwrap()
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

/// Reads a request with a body of one byte.
async fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    stream.read_u8().await.map(drop)
}

/// Sends one, and reads its answer.
async fn exchange(client: &Client, url: &str) -> ExchangeOutcome {
    let target = client.target(url).unwrap();
    let request = Request {
        target: &target,
        headers: target.headers(),
        body: Bytes::from_static(b"x"),
        limits: BodyLimits { kept: 4, read: 1024 },
    };
    let exchange = client.exchange(request, Instant::now() + SOON);
    exchange.await.expect("nothing is short").outcome
}

/// Sends one that is answered.
async fn answered(client: &Client, url: &str) -> Answer {
    match exchange(client, url).await {
        ExchangeOutcome::Answered(answer) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

/// Sends one that fails.
async fn failed(client: &Client, url: &str) -> AttemptError {
    match exchange(client, url).await {
        ExchangeOutcome::Failed(failure) => failure.kind,
        other => panic!("no failure: {other:?}"),
    }
}

/// Answers connection by connection as the script says: each entry answers one request, the last of each
/// connection is followed by its end. Gives how many connections there were.
async fn serve(listener: &TcpListener, connections: &[&[&[u8]]]) {
    for answers in connections {
        let mut stream = listener.accept().await.unwrap().0;
        for answer in *answers {
            read_request(&mut stream).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
    }
}

async fn both<T>(serving: impl Future<Output = ()>, sending: impl Future<Output = T>) -> T {
    timeout(SOON, async { tokio::join!(serving, sending) })
        .await
        .expect("an end in time")
        .1
}

#[tokio::test]
async fn a_kept_connection_that_closes_before_an_answer_costs_nothing() {
    let (listener, url) = listen().await;
    let client = client();
    let serving = serve(&listener, &[&[OK, b""], &[OK]]);
    let sending = async {
        answered(&client, &url).await;
        answered(&client, &url).await
    };
    assert_eq!(both(serving, sending).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_new_connection_that_closes_before_an_answer_is_a_reset() {
    let (listener, url) = listen().await;
    let client = client();
    let serving = serve(&listener, &[&[b""]]);
    assert_eq!(both(serving, failed(&client, &url)).await, AttemptError::Reset);
}

#[tokio::test]
async fn a_kept_connection_that_closes_in_an_answer_is_a_reset() {
    let (listener, url) = listen().await;
    let client = client();
    let serving = serve(&listener, &[&[OK, b"HTTP/1.1 2"]]);
    let sending = async {
        answered(&client, &url).await;
        failed(&client, &url).await
    };
    assert_eq!(both(serving, sending).await, AttemptError::Reset);
}

#[tokio::test]
async fn what_was_said_of_an_idle_connection_is_no_answer() {
    let (listener, url) = listen().await;
    let client = client();
    let serving = serve(&listener, &[&[OK, STRAY], &[OK]]);
    let sending = async {
        answered(&client, &url).await;
        answered(&client, &url).await
    };
    assert_eq!(both(serving, sending).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn folded_header_lines_are_an_answer() {
    let (listener, url) = listen().await;
    let client = client();
    let serving = serve(
        &listener,
        &[&[b"HTTP/1.1 204 No Content\r\nX-Folded: a\r\n\tb\r\n\r\n"]],
    );
    let answer = both(serving, answered(&client, &url)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(
        answer.headers["x-folded"]
            .to_str()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[tokio::test]
async fn a_connection_beyond_the_most_idle_ends_with_its_answer() {
    let mut client = client();
    client.pool = Pool::new(1);
    let ((first, first_url), (second, second_url)) = (listen().await, listen().await);
    let keeping = serve(&first, &[&[OK, OK]]);
    let closing = async {
        let mut stream = second.accept().await.unwrap().0;
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    };
    let sending = async {
        answered(&client, &first_url).await;
        answered(&client, &second_url).await;
        answered(&client, &first_url).await;
    };
    both(
        async {
            let ((), ()) = tokio::join!(keeping, closing);
        },
        sending,
    )
    .await;
}

#[tokio::test]
async fn of_a_body_no_more_is_kept_than_is_wanted() {
    let (listener, url) = listen().await;
    let client = client();
    let answer = |body: &str| format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let (short, long) = (answer("abcd"), answer("abcde"));
    // The connection is kept after both: each body ends within what is read.
    let serving = async { serve(&listener, &[&[&short, &long, OK]]).await };
    let sending = async {
        let short = answered(&client, &url).await;
        assert_eq!((&*short.body, short.is_whole), (&b"abcd"[..], true));
        let long = answered(&client, &url).await;
        assert_eq!((&*long.body, long.is_whole), (&b"abcd"[..], false));
        assert!(answered(&client, &url).await.body.is_empty());
    };
    both(serving, sending).await;
}

#[tokio::test]
async fn a_request_that_is_not_answered_ends_with_its_deadline_and_isolates_its_target() {
    let (_listener, url) = listen().await;
    let client = client();
    let target = client.target(&url).unwrap();
    let request = Request {
        target: &target,
        headers: target.headers(),
        body: Bytes::new(),
        limits: BodyLimits::default(),
    };
    let deadline = Instant::now() + Duration::from_millis(50);
    let exchange = client.exchange(request, deadline).await.unwrap();
    assert!(matches!(exchange.outcome, ExchangeOutcome::TimedOut), "{exchange:?}");
    // It began a moment after the deadline was set.
    assert!(exchange.timing.total >= Duration::from_millis(40), "{exchange:?}");
    assert!(target.is_isolated(std::time::Instant::now()));
}
