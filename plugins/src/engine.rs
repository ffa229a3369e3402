//! The verbs, done by the [`Engine`].

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use netcore::engine::{Attached, Changed, Engine};
use netcore::kernel::{Kernel, Linux};
use netcore::model::{Attachment, AttachmentId, Name, Network};
use netcore::{Error, Result};
use tokio::runtime::Builder;

use crate::delegate::Delegate;
use crate::verbs::Verbs;

/// The engine.
pub(crate) struct Host<K: Kernel> {
    engine: Engine<K>,
}

impl Host<Linux> {
    /// The machine we are on, where `delegate` hands out the addresses that the engine does not.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub(crate) fn open(delegate: Option<Delegate>) -> Result<Self> {
        Ok(Self::new(Engine::open()?, delegate))
    }
}

impl<K: Kernel> Host<K> {
    fn new(engine: Engine<K>, delegate: Option<Delegate>) -> Self {
        let engine = match delegate {
            Some(delegate) => engine.with_ipam(Box::new(delegate)),
            None => engine,
        };
        Self { engine }
    }

    /// Does `work`, on an event loop if there is anything to be waited for. That is seldom: the kernel has
    /// nearly always done what it was asked when it answers, and an event loop is a twentieth of a short call.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        let failed = |source: io::Error| Error::Kernel {
            operation: "create",
            object: "the event loop (epoll)".to_owned(),
            source,
            detail: None,
        };
        Builder::new_current_thread().enable_all().build().map_err(failed)?.block_on(work)
    }
}

impl<K: Kernel> Verbs for Host<K> {
    fn attach(&self, network: &Network, attachment: Attachment) -> Result<Attached> {
        self.wait(self.engine.attach(network, attachment))
    }

    fn detach(&self, network: &Network, id: &AttachmentId, netns: Option<&Path>) -> Result<()> {
        self.wait(self.engine.detach_from(network, id, netns))
    }

    fn check(&self, network: &Network, id: &AttachmentId, changed: &Changed) -> Result<()> {
        self.wait(self.engine.check_after(network, id, changed))
    }

    fn gc(&self, network: &Network, valid: &[AttachmentId]) -> Result<()> {
        self.wait(self.engine.gc(network, valid))
    }

    fn is_on_host(&self, container: &Name) -> Result<bool> {
        self.engine.is_on_host(container)
    }

    fn status(&self, network: &Network) -> Result<()> {
        self.wait(self.engine.status(network))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use netcore::driver::Bridge;
    use netcore::kernel::Memory;
    use netcore::store::Store;
    use serde_json::{Value, json};

    use super::*;
    use crate::failure::Failure;
    use crate::serve::{Answer, serve};

    /// A machine whose kernel is in memory, and whose files are in `directory`.
    struct Machine {
        directory: tempfile::TempDir,
        kernel: Memory,
    }

    impl Machine {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap(), kernel: Memory::new() }
        }

        fn configuration(&self) -> Value {
            json!({
                "cniVersion": "1.1.0", "name": "web", "type": "bridge",
                "isDefaultGateway": true, "ipMasq": true,
                "capabilities": {"portMappings": true},
                "ipam": {"type": "host-local", "subnet": "10.20.0.0/30", "dataDir": self.path("leases")}
            })
        }

        fn path(&self, name: &str) -> String {
            self.directory.path().join(name).display().to_string()
        }

        fn call(&self, verb: &str, container: &str, configuration: &Value) -> Result<Answer, Failure> {
            self.told(verb, container, configuration, &mut String::new())
        }

        fn told(
            &self,
            verb: &str,
            container: &str,
            configuration: &Value,
            told: &mut String,
        ) -> Result<Answer, Failure> {
            let lookup = |name: &str| {
                let value = match name {
                    "CNI_COMMAND" => verb,
                    "CNI_CONTAINERID" => container,
                    "CNI_IFNAME" => "eth0",
                    // Not our own, as far as can be had without making one.
                    "CNI_NETNS" => "/proc/self/ns/mnt",
                    "CNI_PATH" => "/opt/cni/bin",
                    _ => return None,
                };
                Some(value.into())
            };
            let engine = Engine::new(self.kernel.clone(), Store::new(self.path("records")));
            let input = configuration.to_string();
            let tell = |text: &str| {
                text.clone_into(told);
                Ok(())
            };
            serve::<Bridge, Host<Memory>>(lookup, input.as_bytes(), tell, |delegate| Ok(Host::new(engine, delegate)))
        }

        fn result(&self, container: &str, configuration: &Value) -> Value {
            let mut told = String::new();
            self.told("ADD", container, configuration, &mut told).unwrap();
            serde_json::from_str(&told).unwrap()
        }

        fn leases(&self) -> Vec<String> {
            let names = fs::read_dir(Path::new(&self.path("leases")).join("web")).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut addresses: Vec<_> = names.filter(|name| name.starts_with("10.")).collect();
            addresses.sort();
            addresses
        }
    }

    #[test]
    fn a_container_comes_is_checked_and_goes() {
        let machine = Machine::new();
        let mut configuration = machine.configuration();
        configuration["runtimeConfig"] = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});

        let result = machine.result("web-1", &configuration);
        assert_eq!(result["ips"], json!([{"interface": 2, "address": "10.20.0.2/30", "gateway": "10.20.0.1"}]));
        assert_eq!(result["interfaces"][2]["name"], "eth0");
        assert_eq!(machine.leases(), ["10.20.0.2"]);

        configuration["prevResult"] = result;
        assert_eq!(machine.call("CHECK", "web-1", &configuration), Ok(Answer::Done));
        let published = machine.kernel.objects().into_iter().find(|object| object.to_string().contains("publish"));
        machine.kernel.take(&published.unwrap());
        let failure = machine.call("CHECK", "web-1", &configuration).unwrap_err();
        assert_eq!((failure.code, failure.msg.as_str()), (106, "publish 8080/tcp → 10.20.0.2:80: missing"));

        for _ in 0..2 {
            assert_eq!(machine.call("DEL", "web-1", &configuration), Ok(Answer::Done));
            assert!(machine.leases().is_empty());
        }
    }

    #[test]
    fn what_has_to_be_waited_for_finds_an_event_loop() {
        let machine = Machine::new();
        let host = Host::new(Engine::new(machine.kernel.clone(), Store::new(machine.path("records"))), None);
        let waited = host.wait(async {
            tokio::task::yield_now().await;
            // Panics where there is none.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            Ok(7)
        });
        assert_eq!(waited.unwrap(), 7);
        let at_once = host.wait(async { Ok(tokio::runtime::Handle::try_current().is_err()) });
        assert!(at_once.unwrap(), "nothing was waited for");
    }

    #[test]
    fn a_full_network_is_full_for_add_and_status_until_gc() {
        let machine = Machine::new();
        let mut configuration = machine.configuration();
        assert_eq!(machine.call("STATUS", "", &configuration), Ok(Answer::Done));
        machine.result("web-1", &configuration);
        assert_eq!(machine.call("ADD", "web-2", &configuration).unwrap_err().code, 100);
        assert_eq!(machine.call("STATUS", "", &configuration).unwrap_err().code, 50);
        assert_eq!(machine.call("ADD", "web-1", &configuration).unwrap_err().code, 103);

        configuration["cni.dev/valid-attachments"] = json!([{"containerID": "web-1", "ifname": "eth0"}]);
        assert_eq!(machine.call("GC", "", &configuration), Ok(Answer::Done));
        assert_eq!(machine.leases(), ["10.20.0.2"]);
        configuration["cni.dev/valid-attachments"] = json!([]);
        assert_eq!(machine.call("GC", "", &configuration), Ok(Answer::Done));
        assert!(machine.leases().is_empty());
        assert_eq!(machine.call("STATUS", "", &configuration), Ok(Answer::Done));
    }
}
