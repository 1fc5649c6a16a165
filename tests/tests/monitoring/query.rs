//! A query in PromQL, against what is exported.

use std::collections::BTreeSet;

use egress_lab::harness::TestResult;
use promql_parser::{
    label::{METRIC_NAME, Matcher},
    parser::{
        self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
        VectorSelector,
    },
};

use crate::exported::Exported;

/// Names of labels; none for a scalar or a text.
type Names = Option<BTreeSet<String>>;

/// What a query asks for, and what its result looks like.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Labels of the result.
    pub(crate) labels: BTreeSet<String>,
    /// The metrics that it reads.
    pub(crate) metrics: BTreeSet<String>,
}

/// Takes a query apart, and refuses it where it cannot yield what its author
/// thinks: a metric or a label that is not exported, a value that no series
/// has, labels that are gone when they are wanted.
pub(crate) fn ask(query: &str, exported: &Exported) -> Result<Asked, String> {
    let plain = query
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h")
        .replace("$namespace", ".*")
        .replace("$pod", ".*");
    let expr = parser::parse(&plain).map_err(|error| format!("{query}: {error}"))?;
    let mut reader = Reader {
        exported,
        metrics: BTreeSet::new(),
    };
    let labels = reader
        .labels(&expr)
        .map_err(|error| format!("{query}: {error}"))?
        .unwrap_or_default();
    Ok(Asked {
        labels,
        metrics: reader.metrics,
    })
}

struct Reader<'a> {
    exported: &'a Exported,
    metrics: BTreeSet<String>,
}

impl Reader<'_> {
    fn labels(&mut self, expr: &Expr) -> Result<Names, String> {
        match expr {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(None),
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Unary(inner) => self.labels(&inner.expr),
            Expr::Subquery(inner) => self.labels(&inner.expr),
            Expr::VectorSelector(selector) => self.selected(selector),
            Expr::MatrixSelector(matrix) => self.selected(&matrix.vs),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate),
            Expr::Binary(binary) => self.combined(binary),
            Expr::Call(call) => self.called(call),
            Expr::Extension(_) => Err("an extension of the language".to_owned()),
        }
    }

    fn selected(&mut self, selector: &VectorSelector) -> Result<Names, String> {
        let name = selector
            .name
            .as_deref()
            .ok_or("a selector without a metric")?;
        let series = self.exported.series(name);
        if series.is_empty() {
            return Err(format!("nobody exports {name}"));
        }
        if !selector.matchers.or_matchers.is_empty() {
            return Err("alternatives of matchers are no PromQL".to_owned());
        }
        let matchers: Vec<&Matcher> = selector
            .matchers
            .matchers
            .iter()
            .filter(|matcher| matcher.name != METRIC_NAME)
            .collect();
        for matcher in &matchers {
            if !series
                .iter()
                .any(|labels| labels.contains_key(&matcher.name))
            {
                return Err(format!("{name} has no label {}", matcher.name));
            }
        }
        let matching: Vec<_> = series
            .iter()
            .filter(|labels| {
                matchers.iter().all(|matcher| {
                    matcher.is_match(labels.get(&matcher.name).map_or("", String::as_str))
                })
            })
            .collect();
        if matching.is_empty() {
            return Err(format!("no series fits {selector}"));
        }
        self.metrics.insert(name.to_owned());
        Ok(Some(
            matching
                .iter()
                .flat_map(|labels| labels.keys().cloned())
                .collect(),
        ))
    }

    fn aggregated(&mut self, aggregate: &AggregateExpr) -> Result<Names, String> {
        let of = self
            .labels(&aggregate.expr)?
            .ok_or("an aggregation of a scalar")?;
        let keeps_series = matches!(aggregate.op.to_string().as_str(), "topk" | "bottomk");
        match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                within(&by.labels, &of)?;
                let by = by.labels.iter().cloned().collect();
                Ok(Some(if keeps_series { of } else { by }))
            }
            Some(LabelModifier::Exclude(without)) => {
                within(&without.labels, &of)?;
                let without: BTreeSet<_> = without.labels.iter().cloned().collect();
                Ok(Some(of.difference(&without).cloned().collect()))
            }
            None if keeps_series => Ok(Some(of)),
            None => Ok(Some(BTreeSet::new())),
        }
    }

    fn called(&mut self, call: &Call) -> Result<Names, String> {
        let mut found = None;
        for argument in &call.args.args {
            found = self.labels(argument)?.or(found);
        }
        match call.func.name {
            "rate" | "increase" | "irate" => {
                let [argument] = &call.args.args[..] else {
                    return Err("one argument is wanted".to_owned());
                };
                if let Expr::MatrixSelector(matrix) = &**argument {
                    let name = matrix.vs.name.as_deref().unwrap_or_default();
                    let counts = ["_total", "_bucket", "_sum", "_count"];
                    if !counts.iter().any(|ending| name.ends_with(ending)) {
                        return Err(format!("{name} is no counter"));
                    }
                }
            }
            "histogram_quantile" => {
                let labels = found.as_mut().ok_or("a quantile of a scalar")?;
                if !labels.remove("le") {
                    return Err("a quantile without the label le".to_owned());
                }
            }
            "time" | "max_over_time" | "min_over_time" | "avg_over_time" => {}
            other => return Err(format!("{other} is not known here")),
        }
        Ok(found)
    }

    fn combined(&mut self, binary: &BinaryExpr) -> Result<Names, String> {
        let sides = (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?);
        let (Some(left), Some(right)) = sides else {
            return Ok(sides.0.or(sides.1));
        };
        let modifier = binary.modifier.as_ref();
        let shared: BTreeSet<String> =
            match modifier.and_then(|modifier| modifier.matching.as_ref()) {
                Some(LabelModifier::Include(on)) => {
                    within(&on.labels, &left)?;
                    within(&on.labels, &right)?;
                    on.labels.iter().cloned().collect()
                }
                Some(LabelModifier::Exclude(_)) => {
                    return Err("say which labels are matched".to_owned());
                }
                None if left == right => left.clone(),
                None => {
                    return Err(format!("nothing matches: {left:?} beside {right:?}"));
                }
            };
        match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToOne(added)) => {
                within(&added.labels, &right)?;
                Ok(Some(left.into_iter().chain(added.labels.clone()).collect()))
            }
            Some(VectorMatchCardinality::OneToMany(_)) => Err("use group_left".to_owned()),
            Some(VectorMatchCardinality::ManyToMany) => Ok(Some(left)),
            Some(VectorMatchCardinality::OneToOne) | None => Ok(Some(shared)),
        }
    }
}

fn within(wanted: &[String], labels: &BTreeSet<String>) -> Result<(), String> {
    match wanted.iter().find(|label| !labels.contains(*label)) {
        Some(label) => Err(format!("there is no label {label} among {labels:?}")),
        None => Ok(()),
    }
}

/// The names that stand between `before` and what cannot be in a name.
pub(crate) fn mentioned<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let rests = text.split(before).skip(1);
    rests
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            rest.split_at(end.unwrap_or(rest.len())).0
        })
        .collect()
}

fn page() -> Exported {
    let mut exported = Exported::default();
    exported.add(
        "j",
        "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 1\na_total{x=\"3\",y=\"2\"} 1\n\
         b_total{x=\"1\"} 2\ng{x=\"1\"} 1\nh_bucket{le=\"1\"} 1\nh_count 1\n# EOF\n",
    );
    exported
}

pub(crate) fn what_is_not_exported_is_refused() -> TestResult {
    for (query, reason) in [
        ("c_total", "nobody exports c_total"),
        ("sum(", "unclosed"),
        ("rate(a_total)", "expected type"),
        ("a_total{z=\"1\"}", "no label z"),
        ("a_total{x=\"2\"}", "no series fits"),
        ("a_total{x=~\"4|5\"}", "no series fits"),
        ("a_total{job=\"k\"}", "no series fits"),
        ("{x=\"1\"}", "without a metric"),
        ("sum by (z) (a_total)", "no label z"),
        ("sum by (y) (sum by (x) (a_total))", "no label y"),
        ("sum without (z) (a_total)", "no label z"),
        ("rate(g[5m])", "no counter"),
        (
            "histogram_quantile(0.5, rate(h_count[5m]))",
            "without the label le",
        ),
        ("sum by (x) (a_total) / sum(b_total)", "nothing matches"),
        ("a_total * on (y) b_total", "no label y"),
        ("a_total * on (x) group_left (y) b_total", "no label y"),
        ("quantile_over_time(0.5, g[5m])", "not known here"),
    ] {
        let error = ask(query, &page()).unwrap_err();
        assert!(error.contains(reason), "{query}: {error}");
    }
    Ok(())
}

pub(crate) fn what_is_exported_is_accepted() -> TestResult {
    for (query, labels) in [
        (
            "sum by (x) (rate(a_total{job=~\"$pod\"}[$__rate_interval]))",
            "x",
        ),
        ("topk(3, sum by (x, y) (a_total))", "x y"),
        ("sum by (x) (a_total) / sum by (x) (b_total) > 0.5", "x"),
        (
            "sum by (x, y) (a_total) * on (x) group_left (job) b_total",
            "job x y",
        ),
        (
            "histogram_quantile(0.5, sum by (le) (rate(h_bucket[5m])))",
            "",
        ),
        ("time() - min(g)", ""),
        ("sum(up == bool 0)", ""),
    ] {
        let asked = ask(query, &page())?;
        let found: Vec<_> = asked.labels.into_iter().collect();
        assert_eq!(found.join(" "), labels, "{query}");
    }
    assert_eq!(mentioned("{{a}} b {{ c_d }}", "{{"), ["a", ""]);
    Ok(())
}
