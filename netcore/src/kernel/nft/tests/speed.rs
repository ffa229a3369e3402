//! What one attachment costs. Run with `--ignored --nocapture`: figures, no verdict.

use std::time::{Duration, Instant};

use super::*;

#[test]
#[ignore = "prints figures"]
fn what_one_attachment_costs() {
    for others in [0u16, 500] {
        in_namespace(|| {
            let others: Vec<_> = (0..others).map(|n| publish("other", 10_000 + n, "10.88.0.9:80")).collect();
            create(&with_ruleset(&others)).unwrap();
            let own = [
                masquerade("one", "10.88.0.2"),
                masquerade("one", "fd00:88::2"),
                publish("one", 8080, "10.88.0.2:80"),
                publish("one", 8443, "10.88.0.2:443"),
                publish_at("one", "192.0.2.1", 9000, "10.88.0.2:90"),
            ];
            let whole = with_ruleset(&own);
            let (whole, own): (Vec<_>, Vec<_>) = (whole.iter().collect(), own.iter().collect());
            let mut times: [Vec<Duration>; 4] = Default::default();
            for _ in 0..300 {
                let start = Instant::now();
                let nft = Nft::open().unwrap();
                let opened = start.elapsed();
                assert_eq!(nft.observe(&whole).unwrap().len(), 1);
                let observed = start.elapsed();
                nft.create(&own).unwrap();
                let created = start.elapsed();
                nft.remove(&own).unwrap();
                let removed = start.elapsed();
                for (times, time) in
                    times.iter_mut().zip([opened, observed - opened, created - observed, removed - created])
                {
                    times.push(time);
                }
            }
            let medians = times.map(|mut times| {
                times.sort();
                times[times.len() / 2]
            });
            let [open, observe, create, remove] = medians;
            println!(
                "{} ports published already: open {open:?}, observe all {observe:?}, create 5 {create:?}, remove 5 {remove:?}",
                others.len()
            );
        });
    }
}
