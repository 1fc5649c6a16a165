//! The matrix: every way through the router, for every style of pod network,
//! whatever settings of the kernel the pod starts with.
//!
//! One test is one cell of the table that is printed at the end: it builds two
//! labs, one where the router makes its macvlan itself and stays (`legacy`),
//! and one where it finds a private `macvlan0` and ends (`init`), and tries
//! every path in both.
#![allow(
    clippy::print_stdout,
    reason = "the table is the answer of this test program"
)]

mod cell;
mod mtu;
mod one_family;
mod paths;
mod scene;
mod table;

use std::process::ExitCode;

use egress_lab::{
    Cni, Family,
    harness::{self, libtest_mimic::Trial},
};

use crate::{cell::Cell, scene::Sources};

fn main() -> ExitCode {
    let mut tests: Vec<Trial> = Cni::ALL
        .into_iter()
        .flat_map(|cni| Cell::all().into_iter().map(move |cell| (cni, cell)))
        .map(|(cni, cell)| Trial::test(cell.name(cni), move || cell.run(cni)))
        .collect();
    for cni in Cni::ALL {
        for sources in [Sources::Alone, Sources::Narrow] {
            tests.push(Trial::test(sources.name(cni), move || {
                cell::source_without_the_gateway(cni, sources)
            }));
        }
    }
    for cni in Cni::ALL {
        for family in Family::ALL {
            let name = format!("{cni}::{family}_in_a_pod_of_both").replace(' ', "_");
            tests.push(Trial::test(name, move || {
                one_family::the_other_one_is_closed(cni, family)
            }));
        }
    }
    for family in Family::ALL {
        tests.push(Trial::test(format!("mtu::{family}"), move || {
            mtu::bulk_passes_a_smaller_mtu(family)
        }));
    }
    let code = harness::run(&["egress-router-init"], tests);
    print!("{}", table::rendered());
    code
}
