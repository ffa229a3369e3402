//! What the parts of an attachment cost, printed: `cargo test speed -- --nocapture`.

use std::time::{Duration, Instant};

use super::super::conntrack::{self, Published};
use super::packets::track;
use super::*;
use crate::model::Protocol;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("{what:<28} min {:>6} median {:>6} µs", times[0].as_micros(), times[times.len() / 2].as_micros());
}

#[test]
fn speed_of_an_attachment() {
    with_kernel(|host| async move {
        let wanted = attachment();
        let mut times: [Vec<Duration>; 6] = Default::default();
        for number in 0..20 {
            let name = format!("c{number}");
            Netns::create(&name).unwrap();
            let clock = Instant::now();
            let kernel = host.enter(Some(format!("/run/netns/{name}").as_ref())).await.unwrap();
            times[0].push(clock.elapsed());
            let clock = Instant::now();
            kernel.observe(&wanted).await.unwrap();
            times[1].push(clock.elapsed());
            let clock = Instant::now();
            create_all(&kernel, &wanted).await;
            times[2].push(clock.elapsed());
            let clock = Instant::now();
            kernel.settle(&wanted).await.unwrap();
            times[3].push(clock.elapsed());
            let clock = Instant::now();
            kernel.observe(&wanted).await.unwrap();
            times[4].push(clock.elapsed());
            let clock = Instant::now();
            kernel.remove(&wanted[1..2]).await.unwrap();
            times[5].push(clock.elapsed());
        }
        for (what, times) in
            ["enter", "observe nothing", "create all", "settle", "observe all", "remove veth"].iter().zip(times)
        {
            report(what, times);
        }
        let port = Published { protocol: Protocol::Udp, host_address: None, port: 8080, v6: false };
        // With none to forget, and with one that stays.
        let clock = Instant::now();
        conntrack::flush(&[port]).unwrap();
        report("forget of no connections", vec![clock.elapsed()]);
        track("udp", "10.0.0.1", 53);
        let flush = (0..20).map(|_| {
            let clock = Instant::now();
            conntrack::flush(&[port]).unwrap();
            clock.elapsed()
        });
        report("forget connections", flush.collect());
    });
}

#[test]
fn speed_of_each_object() {
    with_kernel(|host| async move {
        let wanted = attachment();
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); wanted.len()];
        let mut forwards = Vec::new();
        for number in 0..20 {
            let name = format!("c{number}");
            Netns::create(&name).unwrap();
            let kernel = host.enter(Some(format!("/run/netns/{name}").as_ref())).await.unwrap();
            for (object, times) in wanted.iter().zip(&mut times) {
                let clock = Instant::now();
                create_all(&kernel, std::slice::from_ref(object)).await;
                times.push(clock.elapsed());
                if matches!(object, Object::Link(link) if link.port.is_some()) {
                    let clock = Instant::now();
                    kernel.settle(std::slice::from_ref(object)).await.unwrap();
                    forwards.push(clock.elapsed());
                }
            }
            kernel.remove(&wanted[1..2]).await.unwrap();
        }
        report("until the port forwards", forwards);
        for (object, times) in wanted.iter().zip(times) {
            report(&object.to_string(), times);
        }
    });
}
