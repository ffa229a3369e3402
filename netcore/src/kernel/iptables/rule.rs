//! A rule as `iptables-save` writes it, and whether two of them are the same: the two programs, and
//! their versions, write a rule in different orders and with different quotes.

use crate::model::Mark;

/// A rule without its chain.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    text: String,
    /// In the order they were written.
    options: Vec<RuleOption>,
    /// The same for all texts of one rule.
    form: String,
    /// The same for all rules that do the same, whatever their comments.
    deed: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RuleOption {
    name: String,
    negated: bool,
    values: Vec<String>,
}

impl Rule {
    /// The rule that `text` says, as in `-A CHAIN text`.
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut options: Vec<RuleOption> = Vec::new();
        let mut negated = false;
        for word in words(&text) {
            match word.as_str() {
                "!" => negated = true,
                _ if word.starts_with('-') => {
                    options.push(RuleOption { name: word, negated, values: Vec::new() });
                    negated = false;
                }
                _ => {
                    if let Some(option) = options.last_mut() {
                        option.values.push(plain(&option.name, word));
                    }
                }
            }
        }
        // Which module an option belongs to is said by some versions more often than by others.
        options.retain(|option| option.name != "-m");
        let (form, deed) = (form(&options, true), form(&options, false));
        Self { text, options, form, deed }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The value of the option `name`, if it is there and not negated.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let option = self.options.iter().find(|option| option.name == name && !option.negated)?;
        option.values.first().map(String::as_str)
    }

    /// Whether the option `name` is there, negated.
    pub(super) fn negates(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.name == name && option.negated)
    }

    pub(super) fn comment(&self) -> Option<&str> {
        self.option("--comment")
    }

    /// Whose it is, if it is one of ours.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.comment().and_then(Mark::parse)
    }

    /// What becomes of a packet that the rule matches.
    pub(super) fn target(&self) -> Option<&str> {
        self.option("-j").or_else(|| self.option("-g"))
    }

    /// Whether it matches every packet.
    pub(super) fn is_unconditional(&self) -> bool {
        let mut conditions = self.options.iter().take_while(|option| !matches!(option.name.as_str(), "-j" | "-g"));
        conditions.all(|option| option.name == "--comment")
    }

    /// Whether both do the same, whosever they are.
    pub(super) fn does_as(&self, other: &Self) -> bool {
        self.deed == other.deed
    }

    /// What all texts of this rule have in common.
    pub(super) fn form(&self) -> &str {
        &self.form
    }
}

fn form(options: &[RuleOption], with_comment: bool) -> String {
    let mut options: Vec<_> = options.iter().filter(|option| with_comment || option.name != "--comment").collect();
    options.sort_unstable();
    format!("{options:?}")
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form
    }
}

/// A single address is the same with its prefix length and without.
fn plain(option: &str, value: String) -> String {
    let length = if value.contains(':') { "/128" } else { "/32" };
    match value.strip_suffix(length) {
        Some(address) if matches!(option, "-s" | "-d") => address.to_owned(),
        _ => value,
    }
}

/// The words of a line: between blanks, or between quotes, within which a backslash takes the
/// next character as it is.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut started) = (Vec::new(), String::new(), false, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => (quoted, started) = (!quoted, true),
            '\\' if quoted => word.extend(characters.next()),
            ' ' if !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            _ => {
                word.push(character);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_the_same_however_it_is_written() {
        let ours = Rule::new(r#"-p tcp -d 192.0.2.1 --dport 80 -m comment --comment "a \"b\"" -j ACCEPT"#);
        let theirs = Rule::new(r#"-d 192.0.2.1/32 -p tcp -m tcp --dport 80 -m comment --comment "a \"b\"" -j ACCEPT"#);
        assert_eq!(ours, theirs);
        assert_eq!(theirs.comment(), Some("a \"b\""));
        let unmarked = Rule::new("-d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j ACCEPT");
        assert!(ours != unmarked && ours.does_as(&unmarked));
        for other in ["! -d 192.0.2.1 -p tcp --dport 80 -j ACCEPT", "-d 192.0.2.1/31 -p tcp --dport 80 -j ACCEPT"] {
            assert!(!Rule::new(other).does_as(&ours), "{other}");
        }
    }

    #[test]
    fn a_rule_without_conditions_is_recognised() {
        for all in ["-j DROP", "-m comment --comment \"no more\" -j REJECT --reject-with icmp-host-prohibited"] {
            assert!(Rule::new(all).is_unconditional(), "{all}");
        }
        assert!(!Rule::new("-i eth0 -j DROP").is_unconditional());
        assert!(!Rule::new("-m conntrack --ctstate INVALID -j DROP").is_unconditional());
    }
}
