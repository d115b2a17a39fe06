//! What nearly every scenario needs: a Herald, its operator, a receiver, a company.

use herald_tests::api::text;
use herald_tests::herald::Builder;
use herald_tests::metrics::Metrics;
use herald_tests::samples::{merged, packet_of, packets_of};
use herald_tests::wait::wait_for;
use herald_tests::{Api, Herald, PATIENCE, Receiver, Stack, Subscription};
use serde_json::{Value, json};
use uuid::Uuid;

/// A Herald with a receiver. The Herald comes first, so that it is stopped before its subscriber.
pub(crate) struct Scene {
    pub(crate) herald: Herald,
    pub(crate) api: Api,
    pub(crate) receiver: Receiver,
    pub(crate) company: Uuid,
}

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::with(Herald::builder()).await
    }

    /// [`Self::start`], where several workers have shared the shards out: what one has learnt of a subscriber does not
    /// go with its shard to another.
    pub(crate) async fn shared_out() -> Self {
        Self::start().await.once_shared_out().await
    }

    /// Waits until the workers have shared out the shards.
    pub(crate) async fn once_shared_out(self) -> Self {
        let scene = self;
        if scene.herald.stack() == Stack::Cluster {
            wait_for(
                "no worker has all shards, and together they have all",
                PATIENCE,
                async || {
                    let owned = shards(&scene.herald).await;
                    owned.iter().sum::<f64>() > 255.5 && owned.iter().all(|shards| *shards < 255.5)
                },
            )
            .await;
        }
        scene
    }

    pub(crate) async fn with(builder: Builder) -> Self {
        let herald = builder.start().await;
        let api = herald.api();
        Self {
            herald,
            api,
            receiver: Receiver::start().await,
            company: Uuid::new_v4(),
        }
    }

    /// Subscribes a path of the receiver to the company's packets.
    pub(crate) async fn subscribe(&self, path: &str, settings: Value) -> Subscription {
        self.api
            .subscribe(&merged(packets_of(self.company, &self.receiver.url(path)), settings))
            .await
    }

    /// Publishes a packet of the company, and gives the event's `Id`.
    pub(crate) async fn publish(&self) -> String {
        self.api.publish(&packet_of(self.company)).await
    }

    /// Publishes that many packets of the company in one request.
    pub(crate) async fn publish_many(&self, count: usize) -> Vec<String> {
        let events: Vec<_> = (0..count).map(|_| packet_of(self.company)).collect();
        self.api.publish_all(&events).await
    }
}

/// How many shards each process owns.
async fn shards(herald: &Herald) -> Vec<f64> {
    let mut owned = Vec::new();
    for address in herald.addresses() {
        let mut metrics = Metrics::default();
        let api = Api::new(&format!("http://{address}"), "").without_key();
        metrics.add(&api.get("/metrics").await.expect(200));
        owned.push(metrics.sum(|name| name == "herald_shards_owned"));
    }
    owned
}

/// One attempt and then no more.
pub(crate) fn one_attempt() -> Value {
    json!({ "Retry": { "MaxAttempts": 1 } })
}

/// The attempts of a delivery.
pub(crate) fn attempts(delivery: &Value) -> &[Value] {
    delivery["Attempts"]
        .as_array()
        .unwrap_or_else(|| panic!("no Attempts in {delivery:#}"))
}

/// The numbers of a delivery's attempts.
pub(crate) fn numbers(delivery: &Value) -> Vec<u64> {
    attempts(delivery)
        .iter()
        .map(|attempt| attempt["Number"].as_u64().expect("a Number"))
        .collect()
}

/// The id of a delivery, which is its `webhook-id` too.
pub(crate) fn id(delivery: &Value) -> &str {
    text(&delivery["Id"])
}
