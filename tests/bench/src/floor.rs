//! The floor: what delivering over RabbitMQ costs at the least.
//!
//! ```text
//! POST ─▶ confirmed publish ─▶ one durable quorum queue ─▶ consume ─▶ POST ─▶ acknowledge
//! ```
//!
//! An event is answered with 202 when the broker has confirmed it, and acknowledged when the subscriber
//! has answered 2xx, as Herald promises it too. There is nothing else: nothing is validated, matched,
//! signed or recorded, a failure goes back into the queue, and a lost connection ends the process.
//!
//! It is fixed, so that ratios to it mean something from version to version. Where it could be done in
//! several ways it is done in the fastest known: one task owns the confirm channel and keeps many
//! messages in flight, and publishing and consuming have a connection each.
//!
//! A subscriber over TLS is given a client that trusts its authority, and takes HTTP/2 where it is
//! offered. All else is the same code, and the client over plain HTTP is the same as without TLS.

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use herald_tests::tls::install_crypto;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

const QUEUE: &str = "floor";

/// How many publishes wait for their confirms at a time.
const MAX_IN_FLIGHT: usize = 500;

/// How many messages are on their way to the subscriber at a time.
const PREFETCH: u16 = 500;

/// AMQP's number for a message that is kept.
const PERSISTENT: u8 = 2;

/// Run the floor alone.
#[derive(Debug, Args)]
pub(crate) struct Floor {
    /// Where it takes events
    #[arg(long)]
    listen: SocketAddr,
    /// An empty vhost
    #[arg(long)]
    broker: String,
    /// Where all events go
    #[arg(long)]
    target: Uri,
    /// The authority of a target over TLS, as PEM
    #[arg(long)]
    trust: Option<PathBuf>,
}

impl Floor {
    /// Runs until it is killed or the broker is lost.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let publishing = connect(&self.broker).await?;
        let consuming = connect(&self.broker).await?;
        let channel = publishing.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        channel
            .queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments)
            .await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let (publications, taken) = mpsc::channel(MAX_IN_FLIGHT);
        let app = Router::new()
            .route("/v1/events", post(accept))
            .route("/health/ready", get(async || ()))
            .with_state(publications);
        let listener = TcpListener::bind(self.listen).await?.tap_io(|stream| {
            stream.set_nodelay(true).expect("a connected socket");
        });
        tokio::select! {
            ended = async { axum::serve(listener, app).await } => ended.context("the listener"),
            ended = publish(&channel, taken) => ended.context("publishing"),
            ended = send_on(&consuming, self.target, self.trust.as_deref()) => ended.context("consuming"),
        }
    }
}

async fn connect(broker: &str) -> anyhow::Result<Connection> {
    let runtime = lapin::runtime::default_runtime()?;
    let connecting = Connection::connect_with_runtime(broker, ConnectionProperties::default(), runtime);
    connecting.await.with_context(|| format!("cannot connect to {broker}"))
}

/// An event, and whom to tell what the broker says of it.
type Publication = (Bytes, oneshot::Sender<Confirmation>);

async fn accept(State(publications): State<mpsc::Sender<Publication>>, event: Bytes) -> StatusCode {
    let (answer, answered) = oneshot::channel();
    let sent = publications.send((event, answer)).await;
    match (sent, answered.await) {
        (Ok(()), Ok(Confirmation::Ack(_))) => StatusCode::ACCEPTED,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn publish(channel: &Channel, mut publications: mpsc::Receiver<Publication>) -> anyhow::Result<()> {
    let mut in_flight = FuturesUnordered::new();
    loop {
        tokio::select! {
            publication = publications.recv(), if in_flight.len() < MAX_IN_FLIGHT => {
                let Some((event, answer)) = publication else { return Ok(()) };
                in_flight.push(async move { (answer, confirm(channel, &event).await) });
            }
            Some((answer, confirmed)) = in_flight.next(), if !in_flight.is_empty() => {
                // Who has gone away does not want it.
                drop(answer.send(confirmed?));
            }
        }
    }
}

async fn confirm(channel: &Channel, event: &[u8]) -> lapin::Result<Confirmation> {
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let published = channel.basic_publish(
        "".into(),
        QUEUE.into(),
        BasicPublishOptions::default(),
        event,
        properties,
    );
    published.await?.await
}

/// Takes what is in the queue to the target, with the client that it needs.
async fn send_on(connection: &Connection, target: Uri, trusted: Option<&Path>) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    match trusted {
        None => consume(connection, target, connector).await,
        Some(authority) => consume(connection, target, secured(connector, authority)?).await,
    }
}

/// A connector that speaks TLS, and HTTP/2 where the other side offers it.
fn secured(mut connector: HttpConnector, authority: &Path) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    install_crypto();
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(authority).context("the authority")?)?;
    let config = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    connector.enforce_http(false);
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_all_versions()
        .wrap_connector(connector))
}

async fn consume<C>(connection: &Connection, target: Uri, connector: C) -> anyhow::Result<()>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let consuming = channel.basic_consume(
        QUEUE.into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut messages = consuming.await?;
    let sender = Client::builder(TokioExecutor::new()).build(connector);
    while let Some(message) = messages.next().await {
        tokio::spawn(deliver(sender.clone(), target.clone(), message?));
    }
    bail!("the queue is gone")
}

/// Sends a message on. One whose acknowledgement fails is of a lost connection, which ends the process.
async fn deliver<C>(sender: Client<C, Full<Bytes>>, target: Uri, mut message: Delivery) -> lapin::Result<bool>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let body = Bytes::from(std::mem::take(&mut message.data));
    if send(&sender, target, body)
        .await
        .is_some_and(|status| status.is_success())
    {
        message.ack(BasicAckOptions::default()).await
    } else {
        let again = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        message.nack(again).await
    }
}

async fn send<C>(sender: &Client<C, Full<Bytes>>, target: Uri, body: Bytes) -> Option<StatusCode>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let request = Request::post(target)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .expect("a method, a URI and a header");
    let response = sender.request(request).await.ok()?;
    let status = response.status();
    // Read to its end, so that the connection can be used again.
    response.into_body().collect().await.ok()?;
    Some(status)
}
