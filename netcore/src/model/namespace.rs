//! Namespaces that containers share: which one is wished for, which one was found, and the file
//! that is bound to it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Name;

/// Whose network namespace a container is to share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Target {
    /// Another container, by the id its runtime gave it.
    Container(Name),
    /// A namespace, by the path of its file.
    Path(PathBuf),
    /// A process.
    Pid(u32),
}

/// What is no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a container's id, the absolute path of a network namespace, or the number of a process")]
pub struct InvalidTarget(pub String);

/// A target as configurations write it: a number is a process, text with a slash in front a path,
/// other text a container's id.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a container's id, the path of a network namespace, or the number of a process")]
enum Written {
    Pid(u32),
    Text(String),
}

impl TryFrom<Written> for Target {
    type Error = InvalidTarget;

    fn try_from(written: Written) -> Result<Self, InvalidTarget> {
        match written {
            Written::Pid(0) => Err(InvalidTarget("0".to_owned())),
            Written::Pid(pid) => Ok(Self::Pid(pid)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Target> for Written {
    fn from(target: Target) -> Self {
        match target {
            Target::Pid(pid) => Self::Pid(pid),
            other => Self::Text(other.to_string()),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if text.starts_with('/') {
            return Ok(Self::Path(text.into()));
        }
        Name::new(text).map(Self::Container).map_err(|name| InvalidTarget(name.value))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => name.fmt(f),
            Self::Path(path) => path.display().fmt(f),
            Self::Pid(pid) => pid.fmt(f),
        }
    }
}

/// Which network namespace it is: the file the kernel keeps for it (nsfs). Good for as long as
/// the namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamespaceId {
    /// The device of nsfs (`st_dev`).
    pub device: u64,
    /// The namespace's number there (`st_ino`).
    pub inode: u64,
}

/// As `/proc/PID/ns/net` reads.
impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

/// A namespace that a container shares with whom it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNamespace {
    /// Which it is.
    pub id: NamespaceId,
    /// Where it was found; the host's own when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_at: Option<PathBuf>,
    /// The container it belongs to, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    /// The sandbox was this namespace before we came: there is nothing to bind.
    #[serde(default)]
    pub given: bool,
}

impl fmt::Display for SharedNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.owner, &self.found_at) {
            (Some(owner), _) => write!(f, "the namespace of {owner} ({})", self.id),
            (None, Some(path)) => write!(f, "the namespace at {} ({})", path.display(), self.id),
            (None, None) => write!(f, "the host's namespace ({})", self.id),
        }
    }
}

/// A namespace file that is bound to another namespace than the one it was made for, so that
/// whoever is started in it finds itself there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The file, as the runtime names it.
    pub path: PathBuf,
    /// The namespace.
    pub to: SharedNamespace,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bind {} → {}", self.path.display(), self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_id_a_path_or_a_pid_and_stays_it() {
        let cases = [
            ("\"web-1\"", Target::Container(Name::new("web-1").unwrap())),
            ("\"1234\"", Target::Container(Name::new("1234").unwrap())),
            ("\"/run/netns/web-1\"", Target::Path("/run/netns/web-1".into())),
            ("1234", Target::Pid(1234)),
        ];
        for (json, target) in cases {
            assert_eq!(serde_json::from_str::<Target>(json).unwrap(), target);
            assert_eq!(serde_json::to_string(&target).unwrap(), json);
        }
        for bad in ["0", "-1", "\"\"", "\"a b\"", "\"../x\"", "[]", "true"] {
            let refusal = serde_json::from_str::<Target>(bad).unwrap_err().to_string();
            assert!(refusal.contains("a container's id"), "{bad}: {refusal}");
        }
    }
}
