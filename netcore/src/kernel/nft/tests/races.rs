//! Many at once, on one host.

use std::sync::Barrier;

use super::*;

const MANY: u16 = 32;

/// Runs `each` on as many threads of this namespace, all starting together.
fn at_once(each: impl Fn(u16) + Sync) {
    let start = Barrier::new(MANY.into());
    std::thread::scope(|scope| {
        for number in 0..MANY {
            let (start, each) = (&start, &each);
            scope.spawn(move || {
                start.wait();
                each(number);
            });
        }
    });
}

fn attachment_of(number: u16) -> Vec<NatRule> {
    let (container, address) = (format!("c{number}"), format!("10.88.1.{number}"));
    vec![
        member("cni0"),
        hairpin("10.88.0.0/16"),
        masquerade(&container, &address),
        publish(&container, 8000 + number, &format!("{address}:80")),
        publish_at(&container, &format!("192.0.2.{number}"), 9000, &format!("{address}:90")),
    ]
}

#[test]
fn the_first_of_all_make_one_rule_set() {
    let alone = in_namespace(|| {
        create(&[ruleset()]).unwrap();
        snapshot()
    });
    for _ in 0..5 {
        in_namespace(|| {
            at_once(|number| create(&with_ruleset(&attachment_of(number))).unwrap());
            assert_eq!(damage(), Some(vec![]));
            for number in 0..MANY {
                assert_eq!(observe(&attachment_of(number)), attachment_of(number));
            }
            for number in 0..MANY {
                remove(&attachment_of(number)).unwrap();
            }
            assert_same(&snapshot(), &alone, "");
        });
    }
}

#[test]
fn a_port_that_all_want_goes_to_one() {
    in_namespace(|| {
        create(&[ruleset()]).unwrap();
        let winners = std::sync::Mutex::new(Vec::new());
        at_once(|number| {
            let rule = match number % 2 {
                0 => publish(&format!("c{number}"), 8080, "10.88.0.2:80"),
                _ => publish_at(&format!("c{number}"), "192.0.2.1", 8080, "10.88.0.2:80"),
            };
            if create(std::slice::from_ref(&rule)).is_ok() {
                winners.lock().unwrap().push(rule);
            }
        });
        let winners = winners.into_inner().unwrap();
        assert_eq!(winners.len(), 1);
        assert_eq!(observe(&winners), winners);
    });
}

#[test]
fn coming_going_and_mending_do_not_get_in_each_others_way() {
    in_namespace(|| {
        create(&[ruleset()]).unwrap();
        let empty = snapshot();
        at_once(|number| {
            // The first two are shared, and stay until all are gone.
            let own = &attachment_of(number)[2..];
            for _ in 0..8 {
                create(&with_ruleset(own)).unwrap();
                assert_eq!(observe(own), own);
                remove(own).unwrap();
                assert_eq!(observe(own), []);
            }
        });
        assert_same(&snapshot(), &empty, "");
    });
}
