//! Finds rules with globs inside labels.

use std::cell::Cell;
use std::collections::HashMap;

use globset::{Candidate, GlobSet, GlobSetBuilder};

use super::PortRange;
use super::glob;
use super::name_index::Earliest;
use super::ports::PortMap;
use super::rule::{RuleIndex, RuleStore, Subject};

/// What a label of a pattern asks for. Each glob is kept once for the whole
/// list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Symbol {
    /// A label of exactly that text, by its number.
    Literal(u32),
    /// `*`: any one label.
    Any,
    /// A label that a glob matches, by the glob's place in the set.
    Glob(usize),
}

thread_local! {
    /// Where a look-up notes which globs match, so that it need not allocate.
    static MATCHING: Cell<Vec<usize>> = const { Cell::new(Vec::new()) };
}

/// A place in the tree of patterns, in which each step is one label, from the
/// last one to the first.
type Node = u32;
const ROOT: Node = 0;

#[derive(Clone, Default, Debug)]
struct Patterns {
    /// The rules on names that end here.
    here: PortMap,
    /// The rules on names that end here or below.
    domain: PortMap,
}

/// The rules on patterns. A look-up matches each label against all globs at
/// once, and follows only the branches that some pattern has.
#[derive(Debug, Default)]
pub(super) struct GlobIndex {
    symbols: HashMap<Box<str>, Symbol>,
    /// The globs, or a pattern of literal text that finds them.
    globs: GlobSet,
    /// What a label must match after a literal text has found the glob.
    wildcards: Box<[Option<Box<str>>]>,
    steps: HashMap<(Node, Symbol), Node>,
    /// The nodes from which a step by a glob leads on.
    with_globs: Box<[bool]>,
    patterns: HashMap<Node, Patterns>,
}

impl GlobIndex {
    /// The index of all rules on patterns.
    ///
    /// # Errors
    /// What is wrong when the globs are too many to be matched at once.
    pub(super) fn new(store: &RuleStore) -> Result<Self, globset::Error> {
        let mut builder = Builder::new();
        for (index, rule) in store.iter() {
            match rule.subject {
                Subject::Glob(pattern) => {
                    let node = builder.node(pattern)?;
                    let rules = builder.rules.entry(node).or_default();
                    rules.here.push((rule.ports, index));
                }
                Subject::DomainGlob(pattern) => {
                    let node = builder.node(pattern)?;
                    let rules = builder.rules.entry(node).or_default();
                    rules.domain.push((rule.ports, index));
                }
                _ => {}
            }
        }
        builder.build()
    }

    /// The first rule on `name` for `port`.
    pub(super) fn first(&self, name: &str, port: u16) -> Option<RuleIndex> {
        let mut first = Earliest::default();
        if !self.patterns.is_empty() {
            self.walk(ROOT, Some(name), port, &mut first);
        }
        first.rule()
    }

    /// Goes on from `node` with what is left of the name in front of it.
    fn walk(&self, node: Node, rest: Option<&str>, port: u16, first: &mut Earliest) {
        if let Some(patterns) = self.patterns.get(&node) {
            first.offer(patterns.domain.first(port));
            if rest.is_none() {
                first.offer(patterns.here.first(port));
            }
        }
        let Some(rest) = rest else {
            return;
        };
        let (rest, label) = match rest.rsplit_once('.') {
            Some((rest, label)) => (Some(rest), label),
            None => (None, rest),
        };
        let mut step = |symbol| {
            if let Some(&next) = self.steps.get(&(node, symbol)) {
                self.walk(next, rest, port, first);
            }
        };
        if let Some(&symbol @ Symbol::Literal(_)) = self.symbols.get(label) {
            step(symbol);
        }
        let with_globs = usize::try_from(node)
            .ok()
            .and_then(|node| self.with_globs.get(node));
        if with_globs == Some(&true) {
            step(Symbol::Any);
            let mut matching = MATCHING.take();
            self.globs
                .matches_candidate_into(&Candidate::new(label), &mut matching);
            for &glob in &matching {
                let wildcards = self.wildcards.get(glob).and_then(Option::as_deref);
                if wildcards.is_none_or(|pattern| glob::matches_wildcards(pattern, label)) {
                    step(Symbol::Glob(glob));
                }
            }
            MATCHING.set(matching);
        }
    }

    /// The first rule that takes every one of `ports` of just this pattern.
    pub(super) fn covering(&self, subject: Subject<'_>, ports: PortRange) -> Option<RuleIndex> {
        let (Subject::Glob(pattern) | Subject::DomainGlob(pattern)) = subject else {
            return None;
        };
        let node = pattern.rsplit('.').try_fold(ROOT, |node, label| {
            let symbol = match label {
                "*" => Symbol::Any,
                _ => *self.symbols.get(label)?,
            };
            self.steps.get(&(node, symbol)).copied()
        })?;
        let patterns = self.patterns.get(&node)?;
        let mut first = Earliest::default();
        first.offer(patterns.domain.covering(ports));
        if matches!(subject, Subject::Glob(_)) {
            first.offer(patterns.here.covering(ports));
        }
        first.rule()
    }
}

struct Builder {
    symbols: HashMap<Box<str>, Symbol>,
    globs: GlobSetBuilder,
    wildcards: Vec<Option<Box<str>>>,
    steps: HashMap<(Node, Symbol), Node>,
    with_globs: Vec<bool>,
    rules: HashMap<Node, Rules>,
}

#[derive(Default)]
struct Rules {
    here: Vec<(PortRange, RuleIndex)>,
    domain: Vec<(PortRange, RuleIndex)>,
}

impl Builder {
    fn new() -> Self {
        Self {
            symbols: HashMap::new(),
            globs: GlobSetBuilder::new(),
            wildcards: Vec::new(),
            steps: HashMap::new(),
            // The root.
            with_globs: vec![false],
            rules: HashMap::new(),
        }
    }

    /// The node of a pattern, made when it is not there.
    fn node(&mut self, pattern: &str) -> Result<Node, globset::Error> {
        let mut node = ROOT;
        for label in pattern.rsplit('.') {
            let symbol = self.symbol(label)?;
            if !matches!(symbol, Symbol::Literal(_))
                && let Some(with_globs) = usize::try_from(node)
                    .ok()
                    .and_then(|node| self.with_globs.get_mut(node))
            {
                *with_globs = true;
            }
            let free = Node::try_from(self.with_globs.len()).unwrap_or(Node::MAX);
            node = *self.steps.entry((node, symbol)).or_insert(free);
            if node == free {
                self.with_globs.push(false);
            }
        }
        Ok(node)
    }

    fn symbol(&mut self, label: &str) -> Result<Symbol, globset::Error> {
        if label == "*" {
            return Ok(Symbol::Any);
        }
        if let Some(&symbol) = self.symbols.get(label) {
            return Ok(symbol);
        }
        let symbol = if glob::is_pattern(label) {
            let candidate = glob::candidate(label).filter(|candidate| candidate != label);
            let pattern = candidate.as_deref().unwrap_or(label);
            self.globs.add(glob::compile(pattern)?);
            self.wildcards.push(candidate.map(|_| label.into()));
            Symbol::Glob(self.wildcards.len() - 1)
        } else {
            Symbol::Literal(u32::try_from(self.symbols.len()).unwrap_or(u32::MAX))
        };
        self.symbols.insert(label.into(), symbol);
        Ok(symbol)
    }

    fn build(self) -> Result<GlobIndex, globset::Error> {
        let patterns = self.rules.into_iter().map(|(node, rules)| {
            let patterns = Patterns {
                here: PortMap::new(rules.here),
                domain: PortMap::new(rules.domain),
            };
            (node, patterns)
        });
        Ok(GlobIndex {
            patterns: patterns.collect(),
            symbols: self.symbols,
            globs: self.globs.build()?,
            wildcards: self.wildcards.into_boxed_slice(),
            steps: self.steps,
            with_globs: self.with_globs.into_boxed_slice(),
        })
    }
}
