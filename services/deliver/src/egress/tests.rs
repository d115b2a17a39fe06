use super::*;
use crate::prepared::tests::subscription;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const STRAY: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

fn sender() -> Sender {
    let policy = Arc::new(EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Sender::new(policy, &[], &[]).unwrap()
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
async fn send(sender: &Sender, number: u128, url: &str) -> Result<(StatusCode, HeaderMap), SendError> {
    let prepared = sender.prepare().get(&subscription(number, url)).unwrap();
    let exchange = sender.exchange(&prepared, prepared.headers(), Bytes::from_static(b"x"));
    let exchange = timeout(SOON, exchange).await.expect("an end in time")?;
    let head = (exchange.status(), exchange.headers().clone());
    exchange.read(&mut Vec::new(), 0, 1024).await;
    Ok(head)
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
    let sender = sender();
    let serving = serve(&listener, &[&[OK, b""], &[OK]]);
    let sending = async {
        send(&sender, 1, &url).await.unwrap();
        send(&sender, 1, &url).await
    };
    assert_eq!(both(serving, sending).await.unwrap().0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_new_connection_that_closes_before_an_answer_is_a_reset() {
    let (listener, url) = listen().await;
    let sender = sender();
    let serving = serve(&listener, &[&[b""]]);
    let error = both(serving, send(&sender, 1, &url)).await.unwrap_err();
    assert_eq!(error.kind(), herald_domain::delivery::AttemptError::Reset);
}

#[tokio::test]
async fn a_kept_connection_that_closes_in_an_answer_is_a_reset() {
    let (listener, url) = listen().await;
    let sender = sender();
    let serving = serve(&listener, &[&[OK, b"HTTP/1.1 2"]]);
    let sending = async {
        send(&sender, 1, &url).await.unwrap();
        send(&sender, 1, &url).await
    };
    let error = both(serving, sending).await.unwrap_err();
    assert_eq!(error.kind(), herald_domain::delivery::AttemptError::Reset);
}

#[tokio::test]
async fn what_was_said_of_an_idle_connection_is_no_answer() {
    let (listener, url) = listen().await;
    let sender = sender();
    let serving = serve(&listener, &[&[OK, STRAY], &[OK]]);
    let sending = async {
        send(&sender, 1, &url).await.unwrap();
        send(&sender, 1, &url).await
    };
    assert_eq!(both(serving, sending).await.unwrap().0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn folded_header_lines_are_an_answer() {
    let (listener, url) = listen().await;
    let sender = sender();
    let serving = serve(
        &listener,
        &[&[b"HTTP/1.1 204 No Content\r\nX-Folded: a\r\n\tb\r\n\r\n"]],
    );
    let (status, headers) = both(serving, send(&sender, 1, &url)).await.unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        headers["x-folded"]
            .to_str()
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[tokio::test]
async fn a_connection_beyond_the_most_idle_ends_with_its_answer() {
    let mut sender = sender();
    sender.pool = Pool::new(1);
    let ((first, first_url), (second, second_url)) = (listen().await, listen().await);
    let keeping = serve(&first, &[&[OK, OK]]);
    let closing = async {
        let mut stream = second.accept().await.unwrap().0;
        read_request(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    };
    let sending = async {
        send(&sender, 1, &first_url).await.unwrap();
        send(&sender, 2, &second_url).await.unwrap();
        send(&sender, 1, &first_url).await.unwrap();
    };
    both(
        async {
            let ((), ()) = tokio::join!(keeping, closing);
        },
        sending,
    )
    .await;
}
