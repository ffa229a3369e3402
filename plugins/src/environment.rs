//! The variables a runtime sets, checked per verb before anything else is looked at (CNI spec
//! 1.1.0, "Section 2: Execution Protocol", "Parameters").

use std::ffi::OsString;
use std::path::PathBuf;

use netcore::model::AttachmentId;

use crate::arguments::Arguments;
use crate::failure::Failure;

/// What the runtime wants, with what it takes to do it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add(Subject),
    Del(Subject),
    Check(Subject),
    Gc,
    Status,
    Version,
}

/// Whom ADD, DEL and CHECK are about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// `CNI_CONTAINERID` and `CNI_IFNAME`.
    pub(crate) id: AttachmentId,
    /// `CNI_NETNS`; only DEL does without.
    pub(crate) netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub(crate) arguments: Arguments,
    /// `CNI_NETNS_OVERRIDE`: the plugin's own namespace is meant.
    pub(crate) own_netns: bool,
}

/// The environment of one call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) command: Command,
    /// `CNI_PATH`: where other plugins are, separated by colons; may be empty.
    pub(crate) path: String,
}

impl Environment {
    /// Reads the variables through `lookup`. `None` when there is no `CNI_COMMAND`: somebody
    /// started the plugin by hand.
    ///
    /// # Errors
    /// A [`Failure`] of code 4 that names the variable, its value and what is accepted.
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Failure> {
        let variables = Variables(lookup);
        let verb = variables.get("CNI_COMMAND")?;
        let command = match verb.as_str() {
            "" => return Ok(None),
            // Runtimes probe with whatever they have in the other variables.
            "VERSION" => return Ok(Some(Self { command: Command::Version, path: String::new() })),
            "ADD" => Command::Add(variables.subject(&verb, true)?),
            "CHECK" => Command::Check(variables.subject(&verb, true)?),
            "DEL" => Command::Del(variables.subject(&verb, false)?),
            "GC" => {
                variables.required("CNI_PATH", &verb, "the directories that plugins are in")?;
                Command::Gc
            }
            "STATUS" => Command::Status,
            other => {
                let verbs = "ADD, DEL, CHECK, GC, STATUS or VERSION";
                return Err(Failure::environment("CNI_COMMAND", &format!("{other:?}"), verbs));
            }
        };
        Ok(Some(Self { command, path: variables.get("CNI_PATH")? }))
    }
}

struct Variables<L>(L);

impl<L: Fn(&str) -> Option<OsString>> Variables<L> {
    /// The variable's value; empty and absent are the same.
    fn get(&self, name: &str) -> Result<String, Failure> {
        let value = (self.0)(name).unwrap_or_default();
        value.into_string().map_err(|value| Failure::environment(name, &format!("{value:?}"), "UTF-8"))
    }

    fn required(&self, name: &str, verb: &str, what: &str) -> Result<String, Failure> {
        let value = self.get(name)?;
        if value.is_empty() {
            return Err(Failure::new(crate::failure::ENVIRONMENT, format!("{name}: missing; {verb} needs {what}")));
        }
        Ok(value)
    }

    fn subject(&self, verb: &str, needs_netns: bool) -> Result<Subject, Failure> {
        let container = self.required("CNI_CONTAINERID", verb, "the container's id")?;
        let interface = self.required("CNI_IFNAME", verb, "the interface's name in the container")?;
        let netns = if needs_netns {
            self.required("CNI_NETNS", verb, "the path of the container's network namespace")?
        } else {
            self.get("CNI_NETNS")?
        };
        let refused = |name: &str, refusal: netcore::model::InvalidName| {
            Failure::environment(name, &format!("{:?}", refusal.value), refusal.expected)
        };
        Ok(Subject {
            id: AttachmentId {
                container: container.parse().map_err(|refusal| refused("CNI_CONTAINERID", refusal))?,
                interface: interface.parse().map_err(|refusal| refused("CNI_IFNAME", refusal))?,
            },
            netns: (!netns.is_empty()).then(|| netns.into()),
            arguments: Arguments::parse(&self.get("CNI_ARGS")?)?,
            own_netns: self.switch("CNI_NETNS_OVERRIDE")?,
        })
    }

    fn switch(&self, name: &str) -> Result<bool, Failure> {
        let value = self.get(name)?;
        parse_switch(&value)
            .ok_or_else(|| Failure::environment(name, &format!("{value:?}"), "1, true, 0, false or nothing"))
    }
}

/// What the protocol's own switches take.
pub(crate) fn parse_switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "" | "0" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Environment>, Failure> {
        Environment::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn refusal(changed: &str, value: &str) -> String {
        let mut variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "web-1"),
            ("CNI_NETNS", "/run/netns/web-1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", ""),
            ("CNI_NETNS_OVERRIDE", ""),
        ];
        for (name, held) in &mut variables {
            if *name == changed {
                *held = value;
            }
        }
        let failure = read(&variables).unwrap_err();
        assert_eq!(failure.code, 4);
        failure.msg
    }

    #[test]
    fn each_verb_needs_its_own_variables() {
        let add = read(&[
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "web-1"),
            ("CNI_NETNS", "/run/netns/web-1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
        ]);
        let add = add.unwrap().unwrap();
        assert_eq!(add.path, "/opt/cni/bin:/usr/lib/cni");
        let Command::Add(subject) = add.command else { panic!("not an ADD") };
        assert_eq!(subject.id.to_string(), "web-1/eth0");
        assert_eq!(subject.netns, Some("/run/netns/web-1".into()));

        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
        let del = read(&del).unwrap().unwrap();
        assert!(matches!(del.command, Command::Del(Subject { netns: None, .. })));

        assert_eq!(read(&[("CNI_COMMAND", "STATUS")]).unwrap().unwrap().command, Command::Status);
        assert_eq!(read(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/b")]).unwrap().unwrap().command, Command::Gc);
        assert_eq!(read(&[("CNI_COMMAND", "GC")]).unwrap_err().code, 4);
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("CNI_COMMAND", "")]).unwrap(), None);
    }

    #[test]
    fn a_version_probe_may_carry_anything() {
        let probe =
            [("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy"), ("CNI_IFNAME", "d/u m:m,y"), ("CNI_ARGS", ";")];
        assert_eq!(read(&probe).unwrap().unwrap().command, Command::Version);
    }

    #[test]
    fn refusals_name_the_variable_the_value_and_what_is_accepted() {
        assert_eq!(refusal("CNI_COMMAND", "add"), "CNI_COMMAND: \"add\" is not ADD, DEL, CHECK, GC, STATUS or VERSION");
        assert_eq!(refusal("CNI_CONTAINERID", ""), "CNI_CONTAINERID: missing; ADD needs the container's id");
        assert_eq!(refusal("CNI_IFNAME", ""), "CNI_IFNAME: missing; ADD needs the interface's name in the container");
        assert_eq!(
            refusal("CNI_NETNS", ""),
            "CNI_NETNS: missing; ADD needs the path of the container's network namespace"
        );
        for bad in ["../../etc", "a/b", "..", "a b", "-a"] {
            let message = refusal("CNI_CONTAINERID", bad);
            assert!(message.starts_with(&format!("CNI_CONTAINERID: {bad:?} is not a name of letters")), "{message}");
        }
        for bad in ["sixteen_bytes_16", "..", "a/b", "a:b", "a b"] {
            let message = refusal("CNI_IFNAME", bad);
            assert!(
                message.starts_with(&format!("CNI_IFNAME: {bad:?} is not an interface name of 1 to 15")),
                "{message}"
            );
        }
        assert_eq!(
            refusal("CNI_NETNS_OVERRIDE", "yes"),
            "CNI_NETNS_OVERRIDE: \"yes\" is not 1, true, 0, false or nothing"
        );
        assert!(refusal("CNI_ARGS", "nonsense").starts_with("CNI_ARGS: \"nonsense\" is not KEY=VALUE"));
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        let failure = Environment::read(|name| match name {
            "CNI_COMMAND" => Some("ADD".into()),
            "CNI_CONTAINERID" => Some(OsString::from_vec(b"w\xffb".to_vec())),
            _ => None,
        });
        let failure = failure.unwrap_err();
        assert_eq!((failure.code, failure.msg.as_str()), (4, "CNI_CONTAINERID: \"w\\xFFb\" is not UTF-8"));
    }
}
