use super::*;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Long enough never to be reached.
const NEVER: Duration = Duration::from_mins(10);

/// Name servers of which those of `silent*` say nothing until they are told to.
struct Servers {
    names: Arc<Names>,
    asked: Arc<AtomicUsize>,
    speak: watch::Sender<bool>,
}

fn servers(limits: Limits) -> Servers {
    let asked = Arc::new(AtomicUsize::new(0));
    let speak = watch::Sender::new(false);
    let (counted, told) = (Arc::clone(&asked), speak.clone());
    let ask: Ask = Box::new(move |name| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (silent, mut told) = (name.starts_with("silent"), told.subscribe());
        async move {
            if silent {
                drop(told.wait_for(|speak| *speak).await);
            }
            Ok(vec![HERE])
        }
        .boxed()
    });
    Servers {
        names: Arc::new(Names::asking(ask, limits)),
        asked,
        speak,
    }
}

impl Servers {
    async fn look_up(&self, name: &str) -> Answer {
        Arc::clone(&self.names).look_up(name).await
    }

    /// Begins to look up that many silent names, and waits until all that may be are asked for.
    async fn occupy(&self, prefix: &str, count: usize, begun: usize) {
        let before = self.asked.load(Ordering::SeqCst);
        for number in 0..count {
            let name = format!("silent-{prefix}-{number}.test");
            let begun = Arc::clone(&self.names).join_or_begin(&name);
            assert!(begun.is_ok(), "{name} is not known to be silent");
        }
        while self.asked.load(Ordering::SeqCst) < before + begun {
            tokio::task::yield_now().await;
        }
    }
}

fn limits(lookup: Duration, silence: Duration) -> Limits {
    Limits {
        at_once: 8,
        silent_at_once: 2,
        lookup,
        silence,
    }
}

#[tokio::test]
async fn a_name_is_asked_for_once_for_all_who_wait() {
    let servers = servers(limits(NEVER, NEVER));
    let (first, second) = (servers.look_up("silent.test"), servers.look_up("silent.test"));
    let opening = async {
        while servers.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        servers.speak.send_replace(true);
    };
    let (first, second, ()) = tokio::join!(first, second, opening);
    assert_eq!((&*first.unwrap(), &*second.unwrap()), (&[HERE][..], &[HERE][..]));
    assert_eq!(servers.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_look_up_goes_on_without_the_one_who_began_it() {
    let servers = servers(limits(NEVER, NEVER));
    servers.occupy("given-up", 1, 1).await;
    servers.speak.send_replace(true);
    assert!(servers.look_up("silent-given-up-0.test").await.is_ok());
}

#[tokio::test]
async fn a_name_that_does_not_answer_is_left_alone_for_a_while() {
    let servers = servers(limits(Duration::from_millis(20), NEVER));
    for _ in 0..2 {
        let answer = servers.look_up("silent.test").await;
        assert!(matches!(answer, Err(LookupError::Silent { .. })), "{answer:?}");
    }
    assert_eq!(
        servers.asked.load(Ordering::SeqCst),
        1,
        "the second knew without asking"
    );
}

#[tokio::test]
async fn a_name_that_answers_again_is_one_like_others() {
    let servers = servers(limits(Duration::from_millis(20), Duration::ZERO));
    assert!(servers.look_up("silent.test").await.is_err());
    servers.speak.send_replace(true);
    assert!(servers.look_up("silent.test").await.is_ok());
    assert!(servers.names.state().silent.is_empty());
}

#[tokio::test]
async fn names_known_to_be_silent_leave_slots_to_the_others() {
    let servers = servers(limits(NEVER, Duration::ZERO));
    for number in 0..20 {
        let name = format!("silent-known-{number}.test").into();
        servers.names.state().silent.insert(name, Instant::now());
    }
    servers.occupy("known", 20, 2).await;
    assert_eq!(servers.names.silent_slots.available_permits(), 0);
    assert_eq!(&*servers.look_up("healthy.test").await.unwrap(), &[HERE]);
}

#[tokio::test]
async fn a_name_waits_for_a_slot_and_is_not_held_to_be_silent_for_that() {
    let servers = servers(limits(NEVER, NEVER));
    servers.occupy("new", 6, 6).await;
    assert_eq!(servers.names.slots.available_permits(), 0);
    let waiting = tokio::time::timeout(Duration::from_millis(20), servers.look_up("healthy.test"));
    assert!(waiting.await.is_err(), "all slots are taken");
    servers.speak.send_replace(true);
    assert!(servers.look_up("healthy.test").await.is_ok());
}

#[tokio::test]
async fn the_system_and_given_servers_are_both_usable() {
    let named = Names::new(&["127.0.0.1:5353".parse().unwrap()]).unwrap();
    let answer = Arc::new(named).look_up("localhost").await.unwrap();
    assert!(answer.contains(&HERE), "{answer:?}");
    let system = Arc::new(Names::new(&[]).unwrap());
    let answer = Arc::clone(&system).look_up("name.invalid").await;
    assert!(matches!(answer, Err(LookupError::Answer { .. })), "{answer:?}");
    assert!(system.look_up("localhost.").await.unwrap().contains(&HERE));
}

#[tokio::test]
async fn of_silent_names_the_older_are_forgotten_first() {
    let mut state = State::default();
    let begin = Instant::now();
    for number in 0..100_u64 {
        state
            .silent
            .insert(number.to_string().into(), begin + Duration::from_secs(number));
    }
    state.forget_oldest();
    assert!(state.silent.len() <= 50 && state.silent.contains_key("99") && !state.silent.contains_key("0"));
}
