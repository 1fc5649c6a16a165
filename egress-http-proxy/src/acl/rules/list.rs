//! All rules of a program.

use std::fmt;
use std::net::IpAddr;

use egress_config::{Continued, Diagnostic, Diagnostics, Line, List, Warning};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::document;
use super::index::Index;
use super::line::RuleLine;
use super::rule::{Found, Rule, RuleIndex, RuleStore, Subject};
use super::shadow::Shadows;
use super::table::Entry;
use super::{Action, PortRange};

/// The rules of `EGRESS_HTTP_PROXY_DESTINATION`, in order: the first that
/// matches decides. Immutable; a look-up allocates nothing and costs the same
/// whether there are ten rules or 100 000.
#[derive(Debug)]
pub struct Rules {
    store: RuleStore,
    index: Index,
    default: Action,
}

impl Rules {
    /// Reads a list of rule lines, or an `EgressNetworkPolicy` document in
    /// JSON or YAML.
    ///
    /// Every bad line is left out and reported to `diagnostics`; lines that
    /// can never decide, and what else may not be meant, give a warning.
    pub fn parse(list: &List, diagnostics: &mut Diagnostics) -> Self {
        if document::is_document(list.text()) {
            let store = document::read(list, diagnostics);
            return Self::build(list, store, Source::Document, diagnostics);
        }
        let mut reader = LineReader {
            list,
            diagnostics,
            store: RuleStore::default(),
            wildcard: None,
            odd: 0,
        };
        for line in list.lines() {
            reader.line(line);
        }
        let store = reader.finish();
        Self::build(list, store, Source::Lines, diagnostics)
    }

    fn build(
        list: &List,
        mut store: RuleStore,
        source: Source,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        store.shrink();
        let index = Index::new(&store).unwrap_or_else(|error| {
            let message = format!("the globs are too many to be matched at once: {error}; use fewer of them, or *.DOMAIN");
            diagnostics.error(Diagnostic::new(list.variable().to_owned(), message));
            Index::default()
        });
        let rules = Self {
            store,
            index,
            default: match source {
                Source::Lines => Action::Deny,
                Source::Document => Action::Allow,
            },
        };
        if diagnostics.errors().is_empty() {
            rules.warn(list, source, diagnostics);
        }
        rules
    }

    fn warn(&self, list: &List, source: Source, diagnostics: &mut Diagnostics) {
        Shadows::of(&self.store, &self.index).report(|line, text, message| {
            let warning = Warning::new(list.variable().to_owned(), message);
            diagnostics.warn(match (line, source) {
                (Some(line), Source::Lines) => warning.line(line).text(text),
                (Some(line), Source::Document) => warning.text(&document::entry_name(line)),
                (None, _) => warning,
            });
        });
        let allows = |(_, rule): (RuleIndex, Rule<'_>)| rule.action == Action::Allow;
        if self.default == Action::Deny && !self.store.iter().any(allows) {
            diagnostics.warn(Warning::new(
                list.variable().to_owned(),
                "no line allows anything, so that every request is denied; add what is allowed, or * as the last line",
            ));
        }
    }

    /// What holds when no rule matches.
    #[must_use]
    pub fn default_action(&self) -> Action {
        self.default
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rule of a line, for messages.
    #[must_use]
    pub fn of_line(&self, line: u32) -> Option<Entry<'_>> {
        self.store.of_line(line).map(Entry::of)
    }

    /// The effective rules in order, and last what holds when none matches,
    /// unless a `*` leaves nothing to it.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let wildcard = |(_, rule): &(RuleIndex, Rule<'_>)| {
            rule.subject == Subject::Any && rule.ports == PortRange::ALL
        };
        let complete = self.store.iter().any(|rule| wildcard(&rule));
        self.store
            .iter()
            .map(|(_, rule)| Entry::of(rule))
            .chain((!complete).then_some(Entry::default_of(self.default)))
    }

    /// The first rule that matches a name (in lower case, without a trailing
    /// dot) on a port, rules on addresses left aside.
    pub(crate) fn first_for_name(&self, name: &str, port: u16) -> Option<Found> {
        self.found(self.index.first_for_name(name, port, &self.store))
    }

    /// The first rule that matches whatever the host is.
    pub(crate) fn first_for_any(&self, port: u16) -> Option<Found> {
        self.found(self.index.first_for_any(port))
    }

    /// The first rule on networks that holds an address.
    pub(crate) fn first_for_address(&self, address: IpAddr, port: u16) -> Option<Found> {
        self.found(self.index.first_for_address(address, 0, port, &self.store))
    }

    /// The first rule on networks that names an address or its network, which
    /// `/0` does not.
    pub(crate) fn first_network(&self, address: IpAddr, port: u16) -> Option<Found> {
        self.found(self.index.first_for_address(address, 1, port, &self.store))
    }

    /// The first rule on networks that does `action` on a port.
    pub(crate) fn first_address_rule(&self, action: Action, port: u16) -> Option<Found> {
        self.found(self.index.first_address_rule(action, port))
    }

    fn found(&self, rule: Option<RuleIndex>) -> Option<Found> {
        self.store.found(rule?)
    }
}

/// The rules as a table with their line numbers.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("  line  rule")?;
        for entry in self.entries() {
            match entry.line() {
                Some(line) => write!(f, "\n{line:>6}  {entry}")?,
                None => write!(f, "\n     -  {entry}")?,
            }
        }
        Ok(())
    }
}

/// The rules as a sequence of [`Entry`].
impl Serialize for Rules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for entry in self.entries() {
            sequence.serialize_element(&entry)?;
        }
        sequence.end()
    }
}

/// Where rules come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Lines,
    Document,
}

struct LineReader<'a, 'd> {
    list: &'a List,
    diagnostics: &'d mut Diagnostics,
    store: RuleStore,
    /// A `*` that no other line has followed so far.
    wildcard: Option<Line<'a>>,
    /// How many lines gave a warning.
    odd: usize,
}

/// How many lines that are accepted with a warning are named; lists that a
/// program wrote may have thousands.
const NAMED: usize = 20;

impl<'a> LineReader<'a, '_> {
    fn line(&mut self, line: Result<Line<'a>, Continued<'a>>) {
        match line {
            Ok(line) => match RuleLine::parse(line.text()) {
                Ok(read) => self.rule(line, &read),
                Err(error) => {
                    self.not_last(line);
                    self.bad(line, &error);
                }
            },
            Err(continued) => {
                let line = continued.line();
                self.not_last(line);
                self.bad(line, &continued);
            }
        }
    }

    fn rule(&mut self, line: Line<'a>, read: &RuleLine) {
        // The image we replace takes a second * as well.
        if !read.is_wildcard() {
            self.not_last(line);
        }
        if let Some(odd) = read.odd {
            self.odd += 1;
            if self.odd <= NAMED {
                self.diagnostics.warn(
                    Warning::new(self.list.variable().to_owned(), odd)
                        .line(line.number())
                        .text(line.text()),
                );
            }
        }
        if read.is_wildcard() && self.wildcard.is_none() {
            self.wildcard = Some(line);
        }
        let kept = self.store.push(Rule {
            line: line.number(),
            action: read.action,
            ports: read.ports,
            subject: read.destination.subject(),
        });
        if kept.is_none() {
            self.bad(line, &"the list is too long; use wider rules");
        }
    }

    fn finish(self) -> RuleStore {
        if let Some(more @ 1..) = self.odd.checked_sub(NAMED) {
            let message = format!(
                "{more} more lines are read otherwise than they are written; see the table of rules"
            );
            self.diagnostics
                .warn(Warning::new(self.list.variable().to_owned(), message));
        }
        self.store
    }

    /// A line that is no `*` follows a `*`: reported once.
    fn not_last(&mut self, next: Line<'a>) {
        let Some(line) = self.wildcard.take() else {
            return;
        };
        let message = format!(
            "* allows the rest, so it must stand last, but line {} follows; move it to the end",
            next.number()
        );
        self.diagnostics.error(
            Diagnostic::at(self.list.variable().to_owned(), line, message)
                .legacy("Wildcard must be last rule, if present"),
        );
    }

    fn bad(&mut self, line: Line<'a>, error: &dyn fmt::Display) {
        let text = line.text();
        let destination = text.strip_prefix('!').unwrap_or(text);
        self.diagnostics.error(
            Diagnostic::at(self.list.variable().to_owned(), line, error)
                .legacy(format!("Bad destination '{destination}'")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Rules, Diagnostics) {
        let mut diagnostics = Diagnostics::new();
        let rules = Rules::parse(&List::new("X", text), &mut diagnostics);
        (rules, diagnostics)
    }

    #[track_caller]
    fn entries(text: &str) -> Vec<String> {
        let (rules, diagnostics) = read(text);
        assert!(diagnostics.errors().is_empty(), "{diagnostics}");
        rules.entries().map(|entry| entry.to_string()).collect()
    }

    #[test]
    fn every_form_reads_back_as_itself() {
        for destination in [
            "*:443",
            "*:1-1023",
            "example.com",
            "example.com:8000-8100",
            "*.example.com",
            "*.example.com:443",
            "api-*.example.com",
            "*.api-*.example.com:443",
            "s3.*.example.com",
            "db[0-9].example.com",
            "{api,www}{,-eu}.example.com",
            "192.0.2.7",
            "192.0.2.7:80",
            "192.0.2.0/24",
            "192.0.2.0/24:80",
            "2001:db8::7",
            "[2001:db8::7]:80",
            "2001:db8::/32",
            "[2001:db8::/32]:80",
            "cafe.de",
            "wwww",
            "xn--bcher-kva.example",
        ] {
            assert_eq!(
                entries(destination),
                [format!("allow {destination}"), "deny *".to_owned()]
            );
            assert_eq!(
                entries(&format!("!{destination}")),
                [format!("deny {destination}"), "deny *".to_owned()]
            );
        }
    }

    #[test]
    fn one_destination_has_one_spelling() {
        for (text, destination) in [
            ("EXAMPLE.com.", "example.com"),
            ("*.EXAMPLE.com.", "*.example.com"),
            ("API-*.example.com.:80-80", "api-*.example.com:80"),
            ("example.com:1-65535", "example.com"),
            ("127.0.0.1/8", "127.0.0.0/8"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:DB8:0:0::7", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::192.0.2.7", "192.0.2.7"),
        ] {
            assert_eq!(
                entries(text),
                [format!("allow {destination}"), "deny *".to_owned()]
            );
        }
        assert_eq!(entries("a.test\n*:1-65535"), ["allow a.test", "allow *"]);
    }

    #[test]
    fn every_bad_line_is_reported() {
        let (_, diagnostics) = read(
            "ok.test\n!*\n!!a.test\n!\n**\nbücher.example\nhttp://a.test\na.test/path\n[::1]\nfe80::1%eth0\n10.0.0.0/255.0.0.0\n1.1.1.1,2.2.2.2\na.test\\\n300.1.1.1\n192.168.1.1/0\n-a.test\n192.168.1.1/24/8\na.test:0\na.test:90-80\na.test allow\na.test # note\n0x7f.1\n10.1\n10.1.*\n*.*\n!*:1-65535\n*.\n[::1]:\n.a.test",
        );
        let report = diagnostics.to_string();
        let expected = "\
X line 2: '!*': would deny everything, as holds without it; remove the line
X line 3: '!!a.test': has more than one !; write one to deny
X line 4: '!': nothing stands behind the !; write !NAME or !ADDRESS
X line 5: '**': '**' is no pattern; write *.DOMAIN for a domain with all its subdomains
X line 6: 'bücher.example': the name is not ASCII; write its xn-- form (RFC 5891)
X line 7: 'http://a.test': is a URL; write the host alone, or HOST:PORT
X line 8: 'a.test/path': has a path, but rules are about hosts; write the host alone
X line 9: '[::1]': an IPv6 address has brackets only before a port; write ADDRESS or [ADDRESS]:PORT
X line 10: 'fe80::1%eth0': has a zone; write the address alone
X line 11: '10.0.0.0/255.0.0.0': bad prefix length; write a decimal number from 0 to 32
X line 12: '1.1.1.1,2.2.2.2': is more than one entry; write each on a line of its own
X line 13: 'a.test\\': a line cannot be continued with '\\'; write the entry on one line
X line 14: '300.1.1.1': an octet is larger than 255; write octets from 0 to 255
X line 15: '192.168.1.1/0': a prefix of no bits leaves nothing of the address; write the length that is meant, or * as the last line for everything
X line 16: '-a.test': a label starts or ends with a hyphen
X line 17: '192.168.1.1/24/8': bad prefix length; write a decimal number from 0 to 32
X line 18: 'a.test:0': '0': port is out of range; write 1 to 65535
X line 19: 'a.test:90-80': '90-80': the range ends before it starts; write the lower port first
X line 20: 'a.test allow': is more than one entry; write each on a line of its own
X line 21: 'a.test # note': a comment stands on a line of its own; move it there
X line 22: '0x7f.1': ends in a number, as only addresses do; write a name, or an address with four decimal octets
X line 23: '10.1': an IPv4 address has four octets; write all of them
X line 24: '10.1.*': the pattern looks like an address; write a network such as 192.0.2.0/24
X line 25: '*.*': the pattern matches every name of some length; name a domain in it
X line 26: '!*:1-65535': would deny everything, as holds without it; remove the line
X line 27: '*.': the name is empty
X line 28: '[::1]:': '': is not a port number; write 1 to 65535 in decimal
X line 29: '.a.test': the name has an empty label; remove the extra dot
Bad destination '*'";
        assert_eq!(report, expected);
    }

    #[test]
    fn the_wildcard_stands_last() {
        let (_, diagnostics) = read("*\n!!x\n*\nb.test\n*");
        assert_eq!(
            diagnostics.to_string(),
            "X line 1: '*': * allows the rest, so it must stand last, but line 2 follows; move it to the end\n\
             X line 2: '!!x': has more than one !; write one to deny\n\
             X line 3: '*': * allows the rest, so it must stand last, but line 4 follows; move it to the end\n\
             Wildcard must be last rule, if present"
        );
        assert_eq!(
            entries("a.test\n*\n# end\n*"),
            ["allow a.test", "allow *", "allow *"]
        );
    }

    #[test]
    fn what_may_not_be_meant_gives_a_warning() {
        for (text, warning) in [
            (
                "127.0.0.1/8",
                "X line 1: '127.0.0.1/8': is read as 127.0.0.0/8; write that",
            ),
            (
                "0.0.0.0/0",
                "X line 1: '0.0.0.0/0': 0.0.0.0/0 matches every destination, by name and by IPv6 address as well; write * as the last line if that is meant",
            ),
            (
                "a.test\n!*.a.test\n!a.test:80\nb.test",
                "X line 3: 'a.test:80': never decides, since rule 1 (allow a.test) stands before it; move it up, or remove it",
            ),
            (
                "a.test\na.test:443",
                "X line 2: 'a.test:443': never decides, since rule 1 (allow a.test) stands before it; remove one of them",
            ),
            (
                "!*.a.test\nx*.b.a.test\nc.test",
                "X line 2: 'x*.b.a.test': never decides, since rule 1 (deny *.a.test) stands before it; move it up, or remove it",
            ),
            (
                "x*.a.test\n!x*.a.test:80",
                "X line 2: 'x*.a.test:80': never decides, since rule 1 (allow x*.a.test) stands before it; move it up, or remove it",
            ),
            (
                "!10.0.0.0/8\n10.1.0.0/16",
                "X line 2: '10.1.0.0/16': never decides, since rule 1 (deny 10.0.0.0/8) stands before it; move it up, or remove it",
            ),
            (
                "!10.0.0.0/8",
                "X: no line allows anything, so that every request is denied; add what is allowed, or * as the last line",
            ),
        ] {
            let (_, diagnostics) = read(text);
            assert!(diagnostics.errors().is_empty());
            let warnings: Vec<_> = diagnostics
                .warnings()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(warnings, [warning], "{text:?}");
        }
        // A wider rule of the same verdict makes nothing wrong.
        for text in [
            "*.a.test\nx.a.test",
            "!a.test\n*",
            "a.test:80\n!a.test\nb.test",
        ] {
            let (_, diagnostics) = read(text);
            assert_eq!(diagnostics, Diagnostics::new(), "{text:?}");
        }
        let (_, diagnostics) = read(
            &(0..100)
                .map(|i| format!("10.{i}.0.1/16\n"))
                .collect::<String>(),
        );
        assert_eq!(diagnostics.warnings().len(), 21);
        assert_eq!(
            diagnostics
                .warnings()
                .last()
                .map(ToString::to_string)
                .as_deref(),
            Some(
                "X: 80 more lines are read otherwise than they are written; see the table of rules"
            )
        );
        let (_, diagnostics) = read(&"a.test\n".repeat(1000));
        assert_eq!(diagnostics.warnings().len(), 21);
        assert_eq!(
            diagnostics
                .warnings()
                .last()
                .map(ToString::to_string)
                .as_deref(),
            Some("X: 979 more lines never decide; see the table of rules")
        );
    }

    #[test]
    fn the_table_has_line_numbers() {
        let (rules, _) = read("# who\n!*.example.com\n\n10.0.0.0/8:443");
        assert_eq!(
            rules.to_string(),
            "  line  rule\n     2  deny *.example.com\n     4  allow 10.0.0.0/8:443\n     -  deny *"
        );
        assert_eq!(
            serde_json::to_string(&rules).unwrap(),
            r#"[{"line":2,"action":"deny","destination":"*.example.com"},{"line":4,"action":"allow","destination":"10.0.0.0/8:443"},{"line":null,"action":"deny","destination":"*"}]"#
        );
        assert_eq!(
            rules.of_line(4).map(|entry| entry.to_string()).as_deref(),
            Some("allow 10.0.0.0/8:443")
        );
        assert_eq!(rules.of_line(3), None);
    }

    const POLICY: &str = "\
# what the team may reach
apiVersion: network.openshift.io/v1
kind: EgressNetworkPolicy
metadata:
  name: default
  labels: {team: a}
spec:
  egress:
  - type: Allow
    to: {dnsName: WWW.example.com}
  - type: Deny
    to:
      cidrSelector: 10.0.0.0/8
  - type: Deny
    to: {cidrSelector: 0.0.0.0/0}
";
    const POLICY_JSON: &str = r#"{"kind": "EgressNetworkPolicy", "apiVersion": "v1", "spec":
        {"egress": [{"type": "Deny", "to": {"cidrSelector": "10.0.0.0/8"}}]}}"#;

    #[test]
    fn an_egress_network_policy_is_a_list() {
        let rules = [
            "allow www.example.com",
            "deny 10.0.0.0/8",
            "deny 0.0.0.0/0",
            "allow *",
        ];
        assert_eq!(entries(POLICY), rules);
        assert_eq!(entries(&format!("---\n{POLICY}")), rules);
        assert_eq!(entries(POLICY_JSON), ["deny 10.0.0.0/8", "allow *"]);
        let list = format!(r#"{{"kind": "List", "apiVersion": "v1", "items": [{POLICY_JSON}]}}"#);
        assert_eq!(entries(&list), ["deny 10.0.0.0/8", "allow *"]);
        let (rules, _) = read(POLICY);
        assert_eq!(rules.default_action(), Action::Allow);
        assert_eq!(
            rules.first_for_name("www.example.com", 1).map(Found::line),
            Some(1)
        );
        assert_eq!(
            rules.first_for_name("other.test", 1).map(Found::line),
            Some(3)
        );
    }

    #[test]
    fn a_bad_policy_says_what_is_wrong() {
        let entry = |text: &str| {
            format!(
                "kind: EgressNetworkPolicy\nspec:\n  egress:\n  - {{type: Allow, to: {text}}}\n"
            )
        };
        for (text, message) in [
            (entry("{cidrSelector: 10.0.0.1/8}"), "X: 'spec.egress[0]': cidrSelector '10.0.0.1/8': has bits set behind its prefix; write 10.0.0.0/8".to_owned()),
            (entry("{dnsName: '*.example.com'}"), "X: 'spec.egress[0]': dnsName '*.example.com': the name has the character '*'; only letters, digits, hyphens, underscores and dots may stand in it; it is one name without wildcards".to_owned()),
            (entry("{dnsName: a.test, cidrSelector: 10.0.0.0/8}"), "X: 'spec.egress[0]': has both cidrSelector and dnsName; write one entry for each".to_owned()),
            (entry("{}"), "X: 'spec.egress[0]': has neither cidrSelector nor dnsName; write one of them".to_owned()),
            ("kind: NetworkPolicy\n".to_owned(), "X: the kind is 'NetworkPolicy'; give one EgressNetworkPolicy document, or one rule a line".to_owned()),
            ("kind: EgressNetworkPolicy\n".to_owned(), "X: the EgressNetworkPolicy has no spec; write spec.egress".to_owned()),
            ("kind: EgressNetworkPolicy\napiVersion: v2\n".to_owned(), "X: 'v2' is no apiVersion of EgressNetworkPolicy; write network.openshift.io/v1".to_owned()),
            ("kind: List\nitems: []\n".to_owned(), "X: the list is empty; give one EgressNetworkPolicy".to_owned()),
        ] {
            let (_, diagnostics) = read(&text);
            assert_eq!(diagnostics.to_string(), message, "{text}");
        }
        for (text, part) in [
            (entry("{nodeSelector: x}"), "unknown field `nodeSelector`"),
            (
                entry("{dnsName: a.test}").replace("Allow", "allow"),
                "unknown variant `allow`",
            ),
            (format!("{POLICY}  egres: []\n"), "unknown field `egres`"),
            (
                "kind: EgressNetworkPolicy\nspec: [\n".to_owned(),
                "is no EgressNetworkPolicy document",
            ),
            (
                "{\"kind\": 1}".to_owned(),
                "is no EgressNetworkPolicy document",
            ),
            (
                format!("{POLICY}---\n{POLICY}"),
                "is no EgressNetworkPolicy document",
            ),
        ] {
            let (_, diagnostics) = read(&text);
            let report = diagnostics.to_string();
            assert!(report.contains(part), "{report}");
            assert_eq!(diagnostics.errors().len(), 1, "{report}");
            assert_eq!(report.lines().count(), 1, "{report}");
        }
    }

    #[test]
    fn lines_that_look_like_a_document_are_lines() {
        for text in [
            "{api,www}.example.com",
            "kind:80",
            "spec",
            "items.example.com",
        ] {
            assert_eq!(entries(text).len(), 2, "{text}");
        }
    }
}
