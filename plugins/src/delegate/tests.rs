use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tempfile::TempDir;

use super::*;

/// A file that is being written cannot be executed, and a fork in another test holds it open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A directory with the plugin `scripted`, which keeps a diary of its calls.
struct Stage {
    directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    fn new(script: &str) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("scripted");
        let diary = r#"echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >> "${0%/*}/diary""#;
        fs::write(&file, format!("#!/bin/sh\n{diary}\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, _alone: alone }
    }

    fn delegate(&self, configuration: &str) -> Delegate {
        Delegate {
            plugin: "scripted".to_owned(),
            path: format!("/nowhere::{}", self.directory.path().display()),
            configuration: configuration.as_bytes().to_vec(),
            version: Version::V0_4_0,
        }
    }

    fn diary(&self) -> Vec<String> {
        let diary = fs::read_to_string(self.directory.path().join("diary")).unwrap();
        diary.lines().map(|line| line.trim().to_owned()).collect()
    }
}

fn attachment() -> Attachment {
    Attachment::new("web-1".parse().unwrap(), Some("/run/netns/web-1".into()))
}

fn network() -> Name {
    "web".parse().unwrap()
}

fn request(attachment: &Attachment) -> Request<'_> {
    // Nothing of a network but its configuration matters to a delegate.
    static NETWORK: OnceLock<Name> = OnceLock::new();
    Request { network: NETWORK.get_or_init(network), attachment, lease: None }
}

fn told(error: Error) -> (u32, String, String) {
    match error {
        Error::Delegate { code, message, details, .. } => (code, message, details),
        other => panic!("{other}"),
    }
}

#[test]
fn it_gets_the_configuration_and_its_answer_is_the_lease() {
    // The answer is the configuration itself: it was passed on to the byte.
    let stage = Stage::new("cat");
    let configuration = r#"{"name": "web", "ips": [{"version": "4", "address": "10.9.0.2/24", "gateway": "10.9.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.9.0.1"]}}"#;
    let delegate = stage.delegate(configuration);
    let lease = delegate.allocate(&request(&attachment())).unwrap();
    assert_eq!(lease.addresses[0].address.to_string(), "10.9.0.2/24");
    assert_eq!(lease.addresses[0].gateway.unwrap().to_string(), "10.9.0.1");
    assert_eq!((lease.routes.len(), lease.dns.nameservers.len()), (1, 1));
    delegate.check(&request(&attachment())).unwrap();
    delegate.release(&request(&Attachment::new("web-1".parse().unwrap(), None))).unwrap();
    assert_eq!(
        stage.diary(),
        ["ADD web-1 eth0 /run/netns/web-1", "CHECK web-1 eth0 /run/netns/web-1", "DEL web-1 eth0"]
    );
}

#[test]
fn an_answer_of_another_version_is_understood() {
    let stage = Stage::new(r#"echo '{"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.3/24"}}'"#);
    let lease = stage.delegate("{}").allocate(&request(&attachment())).unwrap();
    assert_eq!(lease.addresses[0].address.to_string(), "10.9.0.3/24");
}

#[test]
fn its_refusal_is_passed_on_and_it_is_told_to_forget() {
    let stage = Stage::new(r#"echo '{"code": 11, "msg": "lease pending", "details": "ask again"}'; exit 1"#);
    let refusal = stage.delegate("{}").allocate(&request(&attachment())).unwrap_err();
    assert_eq!(refusal.to_string(), "IPAM plugin scripted: lease pending (ask again)");
    assert_eq!(told(refusal), (11, "lease pending".into(), "ask again".into()));
    assert_eq!(stage.diary(), ["ADD web-1 eth0 /run/netns/web-1", "DEL web-1 eth0 /run/netns/web-1"]);
}

#[test]
fn an_answer_that_is_none_is_an_error_and_leaves_nothing() {
    for (script, code, words) in [
        ("echo nonsense", 6, "its answer is not JSON"),
        ("echo '{}'", 999, "it gave no address"),
        (r#"echo '{"ips": [{"address": "x"}]}'"#, 7, "result.ips[0].address: \"x\" is not an address"),
        ("echo oops; exit 3", 999, "exit status: 3, without a CNI error"),
        ("kill -9 $$", 999, "signal: 9"),
    ] {
        let stage = Stage::new(script);
        let (found, message, _) = told(stage.delegate("{}").allocate(&request(&attachment())).unwrap_err());
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(stage.diary().len(), 2, "{script}: no DEL after the failed ADD");
    }
}

#[test]
fn large_configurations_and_deaf_plugins_do_not_block() {
    let large = format!(r#"{{"name": "{}", "ips": [{{"address": "10.9.0.2/24"}}]}}"#, "x".repeat(500_000));
    assert!(Stage::new("cat").delegate(&large).allocate(&request(&attachment())).is_ok());
    let deaf = Stage::new(r#"echo '{"ips": [{"address": "10.9.0.2/24"}]}'"#);
    assert!(deaf.delegate(&large).allocate(&request(&attachment())).is_ok());
}

#[test]
fn gc_and_status_are_forwarded() {
    let stage = Stage::new(r#"[ $CNI_COMMAND = GC ] || { echo '{"code": 50, "msg": "no lease left"}'; exit 1; }"#);
    let delegate = stage.delegate("{}");
    delegate.gc(&network(), &[]).unwrap();
    assert_eq!(told(delegate.status(&network()).unwrap_err()).0, 50);
    assert_eq!(stage.diary(), ["GC", "STATUS"]);
}

#[test]
fn a_plugin_that_is_not_there_names_cni_path() {
    let delegate = Delegate {
        plugin: "dhcp".to_owned(),
        path: "/opt/none:/usr/none".to_owned(),
        configuration: Vec::new(),
        version: Version::LATEST,
    };
    let (code, message, _) = told(delegate.allocate(&request(&attachment())).unwrap_err());
    assert_eq!((code, message.as_str()), (4, "no such executable in CNI_PATH (/opt/none:/usr/none)"));
}
