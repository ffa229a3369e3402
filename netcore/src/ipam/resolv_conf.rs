//! Resolver settings out of a resolv.conf(5).

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::Dns;

/// The settings in the file at `path`. Lines that say nothing we know are passed over, as every
/// resolver does.
pub(super) fn read(path: &Path) -> Result<Dns> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let values = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => dns.nameservers.extend(values.take(1)),
            Some("domain") => dns.domain = values.take(1).next().or(dns.domain),
            Some("search") => dns.search.extend(values),
            Some("options") => dns.options.extend(values),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read_as_resolvers_do() {
        let text = "# nameserver 9.9.9.9\n; a comment\n nameserver 10.0.0.1 # ours\nnameserver fd00::1\n\nnameserver\n\
                    domain example.org\nsearch a.example b.example\noptions ndots:2\toptions edns0\nsortlist 10/8\n";
        let dns = parse(text);
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!(dns.domain.as_deref(), Some("example.org"));
        assert_eq!(dns.search, ["a.example", "b.example"]);
        assert_eq!(dns.options, ["ndots:2", "options", "edns0"]);
        let missing = read(Path::new("/no/such/resolv.conf")).unwrap_err();
        assert!(missing.to_string().starts_with("read /no/such/resolv.conf: "), "{missing}");
    }
}
