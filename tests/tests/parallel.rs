//! Many at once, and some of them killed half-way: what is left is what should be.

use std::io::Write;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use netcore_tests::traffic::ping;
use netcore_tests::{Attachment, Cni, Failure, Host, Netns, Network, Outside, Publish};

const SUBNETS: &[&str] = &["10.20.0.0/24", "fd20::/64"];

fn web(host: &Host) -> Cni {
    host.cni(Network::bridge("web", SUBNETS))
}

/// Makes all `attachments` at the same moment.
fn add_together(attachments: Vec<Attachment>) -> Vec<Result<Attachment, Failure>> {
    let start = Barrier::new(attachments.len());
    let add = |mut attachment: Attachment| {
        start.wait();
        attachment.add().map(|_| attachment)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = attachments.into_iter().map(|attachment| scope.spawn(|| add(attachment))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn containers(host: &Host, count: usize) -> Vec<Netns> {
    (0..count).map(|number| host.netns(&format!("c{number}"))).collect()
}

#[test]
fn of_two_adds_for_one_interface_one_wins_and_is_unharmed() {
    let host = Host::new();
    let web = web(&host);
    for round in 0..5 {
        let netns = host.netns(&format!("twin{round}"));
        let wish = web.attachment(&netns).publish(Publish::tcp(8080, 80));
        let (won, lost): (Vec<_>, Vec<_>) = add_together(vec![wish.clone(), wish]).into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 1), "one wins, one loses");
        let winner = won.into_iter().flatten().next().expect("one won");
        winner.check().unwrap();
        ping(&netns, [10, 20, 0, 1]);
        let leases = host.run("ls /var/lib/cni/networks/web | grep -c ^10.20");
        assert_eq!(leases.trim(), "1", "the loser gave its address back");
        winner.del().unwrap();
    }
}

#[test]
fn a_second_add_later_is_refused_and_harms_nothing() {
    let host = Host::new();
    let web = web(&host);
    let netns = host.netns("box");
    let mut attachment = web.attachment(&netns).publish(Publish::tcp(8080, 80)).added();
    let before = host.snapshot();
    let first = attachment.clone();
    let failure = attachment.add().expect_err("eth0 is there already");
    assert!(failure.says("eth0"), "{failure}");
    before.assert_same(&host.snapshot(), "after the refused ADD");
    first.check().unwrap();
}

#[test]
fn thirty_two_at_once_on_a_bridge_that_is_not_there_yet() {
    const COUNT: usize = 32;
    let host = Host::new();
    let _outside = host.outside();
    let web = web(&host);
    let netns = containers(&host, COUNT);
    let before = host.snapshot();
    let wishes = netns.iter().zip(9000..).map(|(netns, port)| web.attachment(netns).publish(Publish::tcp(port, 80)));
    let added: Vec<_> = add_together(wishes.collect())
        .into_iter()
        .map(|result| result.unwrap_or_else(|failure| panic!("{failure}")))
        .collect();

    let mut addresses: Vec<_> = added.iter().flat_map(Attachment::addresses).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), COUNT * SUBNETS.len(), "every address once");
    for attachment in &added {
        attachment.check().unwrap();
    }
    ping(&netns[0], added[COUNT - 1].address());

    thread::scope(|scope| {
        let deletions: Vec<_> = added.iter().map(|attachment| scope.spawn(|| attachment.del())).collect();
        for deletion in deletions {
            deletion.join().expect("no panic").unwrap();
        }
    });
    let after = host.snapshot();
    for trace in ["link veth", "file /run/netcore", "file /var/lib/cni"] {
        assert_eq!(after.count(trace), before.count(trace), "{trace} in {after}");
    }
    for netns in &netns {
        assert!(!after.mentions(&format!("/{}/", netns.name())), "{} in {after}", netns.name());
    }
}

#[test]
fn adds_and_dels_of_different_containers_do_not_disturb_each_other() {
    let host = Host::new();
    let web = web(&host);
    let netns = containers(&host, 8);
    let warm = web.attachment(&netns[0]).added();
    warm.del().unwrap();
    let before = host.snapshot();
    thread::scope(|scope| {
        for netns in &netns {
            scope.spawn(|| {
                for _ in 0..6 {
                    let attachment = web.attachment(netns).added();
                    attachment.check().unwrap();
                    attachment.del().unwrap();
                }
            });
        }
    });
    before.assert_same(&host.snapshot(), "after 48 attachments came and went");
}

#[test]
fn networks_that_share_nothing_come_up_together() {
    let host = Host::new();
    let netns = containers(&host, 8);
    let wishes = netns.iter().enumerate().map(|(number, netns)| {
        let subnet = format!("10.{}.0.0/24", 40 + number);
        host.cni(Network::bridge(&format!("net{number}"), &[&subnet])).attachment(netns)
    });
    for result in add_together(wishes.collect()) {
        result.unwrap_or_else(|failure| panic!("{failure}")).check().unwrap();
    }
}

/// Starts `ADD` and kills it `after` so long.
fn killed_add(host: &Host, attachment: &Attachment, after: Duration) {
    let plugin = attachment.first_plugin();
    let mut child = host.enter(|| plugin.command("ADD").spawn()).expect("start the plugin");
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.write_all(plugin.configuration());
    drop(stdin);
    let start = Instant::now();
    while start.elapsed() < after {
        std::hint::spin_loop();
    }
    child.kill().expect("kill the plugin");
    child.wait().expect("wait for the plugin");
}

#[test]
fn an_add_that_is_killed_at_any_moment_is_healed_by_del_or_gc() {
    const ROUNDS: u32 = 60;
    let host = Host::new();
    let _outside = host.outside();
    let web = host.cni(Network::bridge("web", SUBNETS).version("1.1.0"));
    let netns = host.netns("victim");
    let attachment =
        web.attachment(&netns).publish(Publish::tcp(8080, 80)).publish(Publish::udp(53, 53).on(Outside::HOST_V4));
    // The network in use, and how long an ADD takes.
    let kept = web.attachment(&host.netns("kept")).added();
    let start = Instant::now();
    attachment.clone().added().del().unwrap();
    let longest = start.elapsed().min(Duration::from_millis(12));
    let before = host.snapshot();
    for round in 0..ROUNDS {
        killed_add(&host, &attachment, longest * round / ROUNDS);
        match round % 3 {
            0 => attachment.del().unwrap(),
            1 => attachment.clone().without_netns().del().unwrap(),
            _ => web.gc(&[&kept]).unwrap(),
        }
        before.assert_same(&host.snapshot(), &format!("after round {round}"));
        assert_eq!(netns.run("ip -br link show type veth"), "", "round {round}");
    }
    attachment.added().check().unwrap();
    kept.check().unwrap();
}

#[test]
fn an_add_after_a_killed_one_works_once_del_has_run() {
    let host = Host::new();
    let web = web(&host);
    let netns = host.netns("victim");
    let attachment = web.attachment(&netns).publish(Publish::tcp(8080, 80));
    for step in 0..8 {
        killed_add(&host, &attachment, Duration::from_micros(300 * step));
        attachment.del().unwrap();
        let again = attachment.clone().added();
        again.check().unwrap();
        ping(&netns, [10, 20, 0, 1]);
        again.del().unwrap();
    }
}

#[test]
fn a_del_that_is_killed_is_finished_by_the_next() {
    let host = Host::new();
    let web = web(&host);
    let netns = host.netns("victim");
    web.attachment(&netns).added().del().unwrap();
    let before = host.snapshot();
    for step in 0..12 {
        let attachment = web.attachment(&netns).publish(Publish::tcp(8080, 80)).added();
        let plugin = attachment.first_plugin();
        let mut child = host.enter(|| plugin.command("DEL").spawn()).expect("start the plugin");
        let mut stdin = child.stdin.take().expect("piped");
        let _ = stdin.write_all(plugin.configuration());
        drop(stdin);
        thread::sleep(Duration::from_micros(400 * step));
        child.kill().expect("kill the plugin");
        child.wait().expect("wait for the plugin");
        attachment.del().unwrap();
        before.assert_same(&host.snapshot(), &format!("after step {step}"));
    }
}
