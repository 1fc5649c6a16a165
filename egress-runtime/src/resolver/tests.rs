//! The resolver against scripted name servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use egress_config::DomainName;
use hickory_resolver::Hosts;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use prometheus_client::registry::Registry;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::look_up::LookUps;
use super::scripted::{Asked, Reply, Scripted};
use super::system::{MAX_TIME, System};
use super::{Looked, LookupError, Names, Resolver, ResolverMetrics};

/// Long enough for a loaded machine, short against a time-out.
const AT_ONCE: Duration = Duration::from_millis(200);
const FRACTION: Duration = Duration::from_millis(900);

fn name(text: &str) -> DomainName {
    text.parse().unwrap()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn resolver(servers: &[SocketAddr]) -> Resolver {
    let metrics = ResolverMetrics::register(&mut Registry::default());
    let search = [name("one.search"), name("two.search")];
    Resolver::with_servers(servers, &search, Handle::current(), metrics)
}

async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Scripted, Resolver) {
    let server = Scripted::start(script).await;
    let resolver = resolver(&[server.address]);
    (server, resolver)
}

async fn lookup(resolver: &Resolver, text: &str) -> Result<Looked, LookupError> {
    resolver.lookup(&name(text), Names::Absolute).await
}

fn gone() -> Reply {
    Reply::Code(ResponseCode::NXDomain, Some(10))
}

fn failure() -> Reply {
    Reply::Code(ResponseCode::ServFail, None)
}

#[tokio::test]
async fn both_families_are_asked_ipv4_comes_first() {
    let (server, resolver) =
        start(|_| Reply::addresses(&["2001:db8::2", "192.0.2.9", "192.0.2.1"], 30)).await;
    let looked = lookup(&resolver, "a.example").await.unwrap();
    assert_eq!(
        looked.addresses(),
        ips(&["192.0.2.9", "192.0.2.1", "2001:db8::2"])
    );
    assert_eq!(looked.ttl(), Duration::from_secs(30));
    assert_eq!(server.asked().len(), 2);
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.name == "a.example.")
    );
}

#[tokio::test]
async fn one_family_is_enough() {
    for only in ["192.0.2.1", "2001:db8::1"] {
        let (_server, resolver) = start(move |_| Reply::addresses(&[only], 30)).await;
        let looked = lookup(&resolver, "a.example").await.unwrap();
        assert_eq!(looked.addresses(), ips(&[only]));
        assert_eq!(looked.ttl(), Duration::from_secs(30));
    }
}

#[tokio::test]
async fn what_one_family_answers_is_used_when_the_other_fails() {
    for broken in [RecordType::A, RecordType::AAAA] {
        for reply in [failure(), Reply::Silence] {
            let (_server, resolver) = start(move |asked| match &reply {
                reply if asked.kind == broken => reply.clone(),
                _ => Reply::addresses(&["192.0.2.1", "2001:db8::1"], 3600),
            })
            .await;
            let begun = Instant::now();
            let looked = lookup(&resolver, "a.example").await.unwrap();
            assert_eq!(looked.addresses().len(), 1);
            assert!(
                looked.ttl() <= Duration::from_secs(30),
                "worth asking again soon"
            );
            assert!(begun.elapsed() < FRACTION, "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn aliases_are_followed() {
    let (_server, resolver) =
        start(|_| Reply::Chain(vec!["b.example.", "c.example."], ips(&["192.0.2.1"]), 7)).await;
    let looked = lookup(&resolver, "a.example").await.unwrap();
    assert_eq!(looked.addresses(), ips(&["192.0.2.1"]));
    assert_eq!(looked.ttl(), Duration::from_secs(7));
}

#[tokio::test]
async fn sixty_addresses_fit_into_one_datagram() {
    let sixty: Vec<IpAddr> = (1..=60)
        .map(|last| IpAddr::from([192, 0, 2, last]))
        .collect();
    let reply = Reply::Addresses(sixty.clone(), 30);
    let (server, resolver) = start(move |_| reply.clone()).await;
    let looked = lookup(&resolver, "a.example").await.unwrap();
    assert_eq!(looked.addresses(), sixty);
    assert!(server.asked().iter().all(|asked| asked.edns && !asked.tcp));
}

#[tokio::test]
async fn truncated_answers_are_asked_again_by_tcp() {
    let many: Vec<IpAddr> = (1..=250)
        .map(|last| IpAddr::from([192, 0, 2, last]))
        .collect();
    let reply = Reply::Truncated(Box::new(Reply::Addresses(many.clone(), 30)));
    let (server, resolver) = start(move |_| reply.clone()).await;
    let looked = lookup(&resolver, "a.example").await.unwrap();
    assert_eq!(looked.addresses(), many);
    let by_tcp = server.asked().iter().filter(|asked| asked.tcp).count();
    assert_eq!(by_tcp, 2);
}

#[tokio::test]
async fn a_server_without_edns_is_asked_without() {
    let (server, resolver) = start(|asked| match asked.edns {
        true => Reply::Code(ResponseCode::FormErr, None),
        false => Reply::addresses(&["192.0.2.1"], 30),
    })
    .await;
    assert!(lookup(&resolver, "a.example").await.is_ok());
    let before = server.asked().len();
    assert!(lookup(&resolver, "b.example").await.is_ok());
    assert_eq!(server.asked().len(), before + 2, "it is remembered");
}

#[tokio::test]
async fn negative_answers_and_failures_are_told_apart() {
    for (reply, error) in [
        (gone(), LookupError::NoSuchName),
        (
            Reply::Code(ResponseCode::NoError, Some(10)),
            LookupError::NoAddress,
        ),
        (failure(), LookupError::ServerFailure),
        (
            Reply::Code(ResponseCode::Refused, None),
            LookupError::Refused,
        ),
    ] {
        let (_server, resolver) = start(move |_| reply.clone()).await;
        assert_eq!(lookup(&resolver, "a.example").await, Err(error));
    }
    let error = lookup(&resolver(&[]), "a.example").await;
    assert_eq!(error, Err(LookupError::NoNameServer));
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again() {
    let lost = AtomicUsize::new(0);
    let (_server, resolver) = start(move |_| match lost.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::Silence,
        _ => Reply::addresses(&["192.0.2.1", "2001:db8::1"], 30),
    })
    .await;
    let begun = Instant::now();
    let looked = lookup(&resolver, "a.example").await.unwrap();
    assert_eq!(looked.addresses().len(), 2);
    assert!(begun.elapsed() < FRACTION, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_look_up_ends_within_its_time() {
    let (_server, resolver) = start(|_| Reply::Silence).await;
    let begun = Instant::now();
    let error = lookup(&resolver, "a.example").await;
    assert_eq!(error, Err(LookupError::TimedOut));
    assert!(
        begun.elapsed() < MAX_TIME + FRACTION,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_dead_first_server_costs_a_fraction_of_a_second_and_then_nothing() {
    let silent = Scripted::start(|_| Reply::Silence).await;
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let unreachable = closed.local_addr().unwrap();
    drop(closed);
    let good = Scripted::start(|asked| match asked.kind {
        RecordType::A => Reply::addresses(&["192.0.2.1"], 30),
        _ => Reply::Code(ResponseCode::NoError, Some(10)),
    })
    .await;
    for dead in [silent.address, unreachable] {
        let resolver = resolver(&[dead, good.address]);
        for text in ["a.example", "b.example"] {
            let begun = Instant::now();
            assert!(lookup(&resolver, text).await.is_ok());
            assert!(begun.elapsed() < FRACTION, "{:?}", begun.elapsed());
        }
        let begun = Instant::now();
        assert!(lookup(&resolver, "c.example").await.is_ok());
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    }
    assert_eq!(silent.count("c.example.", RecordType::A), 0);
}

#[tokio::test]
async fn when_the_first_server_fails_the_next_is_asked_at_once() {
    let failing = Scripted::start(|_| failure()).await;
    let good = Scripted::start(|_| Reply::addresses(&["192.0.2.1"], 30)).await;
    let resolver = resolver(&[failing.address, good.address]);
    let begun = Instant::now();
    assert!(lookup(&resolver, "a.example").await.is_ok());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_view_of_the_first_server_counts() {
    let late = Duration::from_millis(400);
    let slow =
        Scripted::start(move |_| Reply::Late(late, Box::new(Reply::addresses(&["192.0.2.1"], 30))))
            .await;
    let ignorant = Scripted::start(|_| gone()).await;
    let both = resolver(&[slow.address, ignorant.address]);
    assert!(lookup(&both, "a.example").await.is_ok());
    assert!(!ignorant.asked().is_empty());
    let both = resolver(&[ignorant.address, slow.address]);
    let error = lookup(&both, "b.example").await;
    assert_eq!(error, Err(LookupError::NoSuchName));
    assert_eq!(slow.count("b.example.", RecordType::A), 0);
}

#[tokio::test]
async fn look_ups_of_one_name_are_merged_and_outlive_who_began_them() {
    let late = Duration::from_millis(300);
    let (server, resolver) =
        start(move |_| Reply::Late(late, Box::new(Reply::addresses(&["192.0.2.1"], 30)))).await;
    let ask = || {
        let resolver = resolver.clone();
        tokio::spawn(async move { resolver.resolve(&name("a.example")).await })
    };
    let first = ask();
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..50).map(|_| ask()).collect();
    first.abort();
    for other in others {
        let addresses = other.await.unwrap().unwrap();
        assert_eq!(addresses.as_slice(), ips(&["192.0.2.1"]));
    }
    assert_eq!(server.count("a.example.", RecordType::A), 1);
    assert_eq!(server.count("a.example.", RecordType::AAAA), 1);
    assert!(resolver.cached(&name("a.example")).is_some());
}

#[tokio::test]
async fn a_thousand_names_at_once() {
    let (_server, resolver) = start(|_| Reply::addresses(&["192.0.2.1"], 30)).await;
    let tasks: Vec<_> = (0..1000)
        .map(|number| {
            let resolver = resolver.clone();
            let name = name(&format!("n{number}.example"));
            tokio::spawn(async move { resolver.resolve(&name).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn answers_of_both_kinds_are_cached() {
    let (server, resolver) = start(|asked| match asked.name.as_str() {
        "a.example." => Reply::addresses(&["192.0.2.1"], 30),
        "broken.example." => failure(),
        _ => gone(),
    })
    .await;
    assert_eq!(resolver.cached(&name("a.example")), None);
    for _ in 0..3 {
        assert!(resolver.resolve(&name("a.example")).await.is_ok());
        let error = resolver.resolve(&name("b.example")).await;
        assert_eq!(error, Err(LookupError::NoSuchName));
        let error = resolver.resolve(&name("broken.example")).await;
        assert_eq!(error, Err(LookupError::ServerFailure));
    }
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn names_in_use_survive_name_servers_that_fail_or_fall_silent() {
    for reply in [failure(), Reply::Silence] {
        let patience = match reply {
            Reply::Silence => Duration::from_millis(1800),
            _ => Duration::ZERO,
        };
        let down = Arc::new(AtomicBool::new(false));
        let is_down = down.clone();
        let (server, resolver) = start(move |_| match is_down.load(Ordering::Relaxed) {
            true => reply.clone(),
            false => Reply::addresses(&["192.0.2.1"], 1),
        })
        .await;
        let name = name("a.example");
        assert!(!resolver.resolve(&name).await.unwrap().is_stale());
        down.store(true, Ordering::Relaxed);
        while resolver.cached(&name).is_some() {
            sleep(Duration::from_millis(20)).await;
        }
        for patience in [patience, Duration::ZERO, Duration::ZERO] {
            let begun = Instant::now();
            let addresses = resolver.resolve(&name).await.unwrap();
            assert!(addresses.is_stale());
            assert_eq!(addresses.as_slice(), ips(&["192.0.2.1"]));
            let took = begun.elapsed();
            assert!(took >= patience && took < patience + FRACTION, "{took:?}");
        }
        let asked = server.asked().len();
        assert!(resolver.resolve(&name).await.unwrap().is_stale());
        assert_eq!(server.asked().len(), asked, "not asked again at once");
    }
}

#[tokio::test]
async fn a_name_that_is_gone_ends_the_stale_answer() {
    let replies = Arc::new(Mutex::new(Reply::addresses(&["192.0.2.1"], 1)));
    let script = replies.clone();
    let (_server, resolver) = start(move |_| script.lock().unwrap().clone()).await;
    let name = name("a.example");
    assert!(resolver.resolve(&name).await.is_ok());
    *replies.lock().unwrap() = gone();
    while resolver.cached(&name).is_some() {
        sleep(Duration::from_millis(20)).await;
    }
    let error = resolver.resolve(&name).await;
    assert_eq!(error, Err(LookupError::NoSuchName));
}

#[tokio::test]
async fn names_are_asked_as_given_then_with_the_search_list() {
    let (server, resolver) = start(|asked| match asked.name.as_str() {
        "db.two.search." | "whole.example." => Reply::addresses(&["192.0.2.1"], 30),
        "broken.example." | "refused." => failure(),
        "broken.example.one.search." | "refused.one.search." => {
            Reply::addresses(&["192.0.2.66"], 30)
        }
        _ => gone(),
    })
    .await;
    let search = async |text: &str| resolver.lookup(&name(text), Names::Search).await;

    assert_eq!(search("db").await.unwrap().addresses(), ips(&["192.0.2.1"]));
    let names = |kind| -> Vec<String> {
        let asked = server.asked().into_iter();
        asked
            .filter(|asked| asked.kind == kind)
            .map(|asked| asked.name)
            .collect()
    };
    let order = ["db.", "db.one.search.", "db.two.search."];
    assert_eq!(names(RecordType::A), order);
    assert_eq!(names(RecordType::AAAA), order);

    assert!(search("whole.example").await.is_ok());
    assert_eq!(names(RecordType::A).len(), order.len() + 1);

    let error = search("broken.example").await;
    assert_eq!(error, Err(LookupError::ServerFailure), "not another name");
    assert!(search("refused").await.is_ok());
    assert_eq!(search("nowhere").await, Err(LookupError::NoSuchName));
    let error = lookup(&resolver, "db").await;
    assert_eq!(error, Err(LookupError::NoSuchName), "absolute");
}

#[tokio::test]
async fn the_hosts_file_and_localhost_need_no_server() {
    let server = Scripted::start(|_| gone()).await;
    let mut hosts = Hosts::default();
    let file = b"192.0.2.5 db.internal db\n2001:db8::5 db.internal\n";
    hosts.read_hosts_conf(&file[..]).unwrap();
    let system = System {
        servers: vec![server.address],
        search: Vec::new(),
        time: MAX_TIME,
        hosts,
    };
    let metrics = ResolverMetrics::register(&mut Registry::default());
    let look_ups = LookUps::new(system, metrics);
    for (text, addresses) in [
        ("DB.internal", ips(&["192.0.2.5", "2001:db8::5"])),
        ("db", ips(&["192.0.2.5"])),
        ("localhost", ips(&["127.0.0.1", "::1"])),
        ("a.localhost", ips(&["127.0.0.1", "::1"])),
    ] {
        let finding = look_ups.look_up(&name(text), Names::Absolute).await;
        assert_eq!(finding.into_result().unwrap().addresses(), addresses);
    }
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let server = Scripted::start(|asked| match asked.name.as_str() {
        "a.example." => Reply::addresses(&["192.0.2.1"], 30),
        _ => gone(),
    })
    .await;
    let mut registry = Registry::default();
    let metrics = ResolverMetrics::register(&mut registry);
    let resolver = Resolver::with_servers(&[server.address], &[], Handle::current(), metrics);
    for _ in 0..2 {
        assert!(resolver.resolve(&name("a.example")).await.is_ok());
        assert!(resolver.resolve(&name("b.example")).await.is_err());
    }
    assert!(resolver.cached(&name("a.example")).is_some());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "egress_dns_lookups_total{outcome=\"found\"} 1",
        "egress_dns_lookups_total{outcome=\"no_such_name\"} 1",
        "egress_dns_lookup_duration_seconds_count 2",
        "egress_dns_cache_total{result=\"hit\"} 2",
        "egress_dns_cache_total{result=\"miss\"} 2",
        "egress_dns_cache_total{result=\"negative\"} 1",
        "egress_dns_cache_total{result=\"stale\"} 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
}

#[tokio::test]
async fn what_a_caller_holds_while_resolving_is_small() {
    let resolver = resolver(&[]);
    let name = name("a.example");
    let size = size_of_val(&resolver.resolve(&name));
    assert!(size <= 640, "{size} bytes");
}
