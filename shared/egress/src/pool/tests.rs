use super::super::connect::connect;
use super::super::tls::Tls;
use super::*;
use crate::target::Origin;
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(10);

/// A pool, and a host whose connections are accepted and left alone.
struct Scene {
    pool: Arc<Pool>,
    tls: Tls,
    host: Host,
    origin: Origin,
    _listener: TcpListener,
}

impl Scene {
    async fn new(max_idle: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name: Arc<str> = "http://127.0.0.1".into();
        Self {
            pool: Pool::new(max_idle),
            tls: Tls::new(&[]).unwrap(),
            host: Host {
                origin: Arc::clone(&name),
                may_share: true,
            },
            origin: Origin {
                name,
                host: url::Host::Ipv4([127, 0, 0, 1].into()),
                port: listener.local_addr().unwrap().port(),
                tls: false,
            },
            _listener: listener,
        }
    }

    async fn connect(&self, changed: watch::Sender<()>) -> Result<Connection, SendError> {
        let address = [127, 0, 0, 1].into();
        connect(&self.origin, &[address], &self.tls, false, changed).await
    }

    async fn take(&self) -> Lease {
        let taken = self
            .pool
            .take(&self.host, false, async |changed| self.connect(changed).await);
        timeout(SOON, taken).await.expect("in time").unwrap()
    }

    fn is_there_at(&self, now: Instant) -> bool {
        match self.pool.find(&self.host, false, true, now) {
            Found::Use(lease) => {
                lease.keep();
                true
            }
            Found::Wait(_) | Found::Connect(_) => false,
        }
    }
}

#[tokio::test]
async fn a_connection_takes_no_new_request_when_it_is_old() {
    let scene = Scene::new(1).await;
    scene.take().await.keep();
    let now = Instant::now();
    assert!(scene.is_there_at(now + MAX_AGE / 2), "it is used again");
    assert!(!scene.is_there_at(now + MAX_AGE), "however lately it was");
    assert_eq!(scene.pool.state().idle, 0);
}

#[tokio::test]
async fn what_waits_too_long_is_closed_and_its_host_forgotten() {
    let scene = Scene::new(1).await;
    scene.take().await.keep();
    let now = Instant::now();
    scene.pool.sweep(now + IDLE_TIMEOUT / 2);
    assert_eq!(scene.pool.state().idle, 1);
    scene.pool.sweep(now + IDLE_TIMEOUT);
    let state = scene.pool.state();
    assert_eq!((state.idle, state.hosts.len()), (0, 0));
}

#[tokio::test]
async fn no_more_than_so_many_are_kept() {
    let scene = Scene::new(1).await;
    let (one, other) = (scene.take().await, scene.take().await);
    one.keep();
    other.keep();
    assert_eq!(scene.pool.state().idle, 1);
    scene.pool.make_room();
    assert_eq!(scene.pool.state().idle, 0);
}

#[tokio::test]
async fn requests_follow_the_first_connection_to_a_host_and_then_make_their_own() {
    let scene = Scene::new(8).await;
    let Found::Connect(first) = scene.pool.find(&scene.host, false, true, Instant::now()) else {
        panic!("nothing is there")
    };
    let Found::Wait(mut second) = scene.pool.find(&scene.host, false, true, Instant::now()) else {
        panic!("one is being made")
    };
    let made = scene.connect(first.changed.clone()).await.unwrap();
    let lease = scene.pool.enter(&scene.host, made, Instant::now());
    drop(first);
    timeout(SOON, second.changed.changed()).await.unwrap().unwrap();
    // It was one of HTTP/1.1, and has its request.
    let third = scene.pool.find(&scene.host, false, true, Instant::now());
    assert!(matches!(third, Found::Connect(_)));
    drop((lease, second, third));
    let state = scene.pool.state();
    let lines = &state.hosts[&scene.host];
    assert_eq!((lines.connecting, lines.waiting), (0, 0));
}

#[tokio::test]
async fn one_that_waits_long_enough_makes_its_own() {
    let scene = Scene::new(8).await;
    let first = scene.pool.find(&scene.host, false, true, Instant::now());
    assert!(matches!(first, Found::Connect(_)));
    assert!(!scene.take().await.reused, "though the first never comes");
}
