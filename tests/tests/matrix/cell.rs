//! One cell of the table, and the cells beside it.

use std::thread;

use egress_lab::{Cni, Family, Forwarding, harness::TestResult};

use crate::{
    paths::PATHS,
    scene::{Link, Scene, Settings, Sources},
    table,
};

/// A column of the table: the families of the pod and what it starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) families: &'static [Family],
    pub(crate) rp_filter: u8,
    pub(crate) forwarding: u8,
}

impl Cell {
    /// All columns, from left to right. IPv6 has no `rp_filter`.
    pub(crate) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for rp_filter in [0, 1, 2] {
            for forwarding in [0, 1] {
                cells.push(Self {
                    families: &[Family::Ipv4],
                    rp_filter,
                    forwarding,
                });
            }
        }
        for forwarding in [0, 1] {
            cells.push(Self {
                families: &[Family::Ipv6],
                rp_filter: 0,
                forwarding,
            });
        }
        cells.push(Self {
            families: &Family::ALL,
            rp_filter: 1,
            forwarding: 0,
        });
        cells
    }

    /// `IPv4`, `IPv6` or `both`.
    pub(crate) fn family(self) -> String {
        match self.families {
            [only] => only.to_string(),
            _ => "both".to_owned(),
        }
    }

    /// Name of the test of one pod network.
    pub(crate) fn name(self, cni: Cni) -> String {
        let Self {
            rp_filter,
            forwarding,
            ..
        } = self;
        let family = self.family();
        format!("{cni}::{family}::rp_filter_{rp_filter}::ip_forward_{forwarding}").replace(' ', "_")
    }

    /// Tries every path, with either kind of egress interface at a time.
    pub(crate) fn run(self, cni: Cni) -> TestResult {
        let settings = Settings {
            cni,
            families: self.families,
            rp_filter: self.rp_filter,
            forwarding: if self.forwarding == 0 {
                Forwarding::Off
            } else {
                Forwarding::On
            },
            sources: Sources::WithPrefix,
        };
        let faults = thread::scope(|scope| {
            let runs = Link::ALL.map(|link| scope.spawn(move || faults(settings, link)));
            runs.map(|run| {
                run.join()
                    .unwrap_or_else(|_| vec![(None, "panicked".to_owned())])
            })
        })
        .concat();
        for (number, path) in PATHS.iter().enumerate() {
            let good = !faults
                .iter()
                .any(|(at, _)| at.is_none_or(|at| at == number));
            table::record(self, cni, path.name, good);
        }
        report(&faults)
    }
}

/// A source without length, and one with a prefix that does not hold the
/// gateway: both reach it by a route of its own.
pub(crate) fn source_without_the_gateway(cni: Cni, sources: Sources) -> TestResult {
    let settings = Settings {
        cni,
        families: &Family::ALL,
        rp_filter: 1,
        forwarding: Forwarding::Off,
        sources,
    };
    report(&faults(settings, Link::Created))
}

/// The number of the path that failed, none when nothing could be tried, and
/// why.
type Fault = (Option<usize>, String);

fn faults(settings: Settings, link: Link) -> Vec<Fault> {
    let mut scene = match Scene::set(settings, link) {
        Ok(scene) => scene,
        Err(error) => {
            return vec![(
                None,
                format!("{link}: {}", error.message().unwrap_or_default()),
            )];
        }
    };
    let mut faults = Vec::new();
    for (number, path) in PATHS.iter().enumerate() {
        for family in settings.families {
            if let Err(error) = (path.check)(&mut scene, *family) {
                let reason = error.message().unwrap_or_default();
                faults.push((
                    Some(number),
                    format!("{link}, {family}, {}: {reason}", path.name),
                ));
            }
        }
    }
    faults
}

fn report(faults: &[Fault]) -> TestResult {
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<&str> = faults.iter().map(|(_, reason)| reason.as_str()).collect();
    Err(lines.join("\n").into())
}
