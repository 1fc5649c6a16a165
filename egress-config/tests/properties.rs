//! Properties of the parsers: what is written is read back, and no text makes
//! them panic.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use egress_config::{
    DomainName, InterfaceName, List, OneLine, Port, format_duration, parse_address, parse_duration,
    parse_interface_address, parse_listen, parse_network, words,
};
use ipnet::IpNet;
use proptest::prelude::*;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
}

fn interface_address() -> impl Strategy<Value = IpNet> {
    (address(), any::<u8>()).prop_map(|(address, length)| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length % (bits + 1)).unwrap()
    })
}

/// Text out of the characters that the parsers know.
fn value_like() -> impl Strategy<Value = String> {
    "[0-9a-zA-Z.:/\\[\\]%_ \t#,\\\\\r\n-]{0,40}"
}

proptest! {
    #[test]
    fn ports(number in any::<u16>()) {
        prop_assert_eq!(number.to_string().parse().ok(), Port::new(number));
        let leading_zero = format!("0{number}");
        prop_assert!(leading_zero.parse::<Port>().is_err());
    }

    #[test]
    fn addresses(address in address()) {
        prop_assert_eq!(parse_address(&address.to_string()), Ok(address));
        let with_length = format!("{address}/24");
        prop_assert!(parse_address(&with_length).is_err());
    }

    #[test]
    fn interface_addresses(address in interface_address()) {
        prop_assert_eq!(parse_interface_address(&address.to_string()), Ok(address));
        let network = address.trunc();
        prop_assert_eq!(parse_network(&network.to_string()), Ok(network));
        prop_assert_eq!(parse_network(&address.to_string()).is_ok(), address == network);
    }

    #[test]
    fn listen_addresses(address in address(), port in 1..=u16::MAX) {
        let socket = SocketAddr::new(address, port);
        prop_assert_eq!(parse_listen(&socket.to_string()), Ok(Some(socket)));
    }

    #[test]
    fn durations(milliseconds in any::<u32>()) {
        let duration = Duration::from_millis(milliseconds.into());
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
    }

    #[test]
    fn domain_names(name in "[a-zA-Z_]([a-zA-Z0-9_-]{0,10}[a-zA-Z])?(\\.[a-z]([a-z0-9-]{0,10}[a-z])?){0,4}") {
        let parsed: DomainName = name.parse().unwrap();
        prop_assert_eq!(parsed.as_str(), name.to_ascii_lowercase());
        prop_assert_eq!(parsed.to_string().parse(), Ok(parsed.clone()));
        prop_assert_eq!(format!("{name}.").to_ascii_uppercase().parse(), Ok(parsed));
    }

    #[test]
    fn a_name_that_is_read_is_written_the_same(text in value_like()) {
        if let Ok(name) = text.parse::<InterfaceName>() {
            prop_assert_eq!(name.as_str(), text.as_str());
            prop_assert!((1..=15).contains(&text.len()));
        }
        if let Ok(name) = text.parse::<DomainName>() {
            prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
            prop_assert!((1..=253).contains(&name.as_str().len()));
        }
    }

    #[test]
    fn a_value_that_is_read_is_read_back(text in value_like()) {
        if let Ok(duration) = parse_duration(&text) {
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        if let Ok(network) = parse_interface_address(&text) {
            prop_assert_eq!(parse_interface_address(&network.to_string()), Ok(network));
        }
        if let Ok(Some(socket)) = parse_listen(&text) {
            prop_assert_eq!(parse_listen(&socket.to_string()), Ok(Some(socket)));
        }
        for word in words(&text) {
            prop_assert!(!word.is_empty() && !word.contains([' ', '\t', '\n', ',']));
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in any::<String>()) {
        let _ = parse_address(&text);
        let _ = parse_interface_address(&text);
        let _ = parse_network(&text);
        let _ = parse_listen(&text);
        let _ = parse_duration(&text);
        let _ = text.parse::<Port>();
        let _ = text.parse::<InterfaceName>();
        let _ = text.parse::<DomainName>();
        let shown = OneLine(&text).to_string();
        prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\t'));
    }

    #[test]
    fn a_line_is_where_its_number_says(text in value_like()) {
        let raw: Vec<&str> = text.split('\n').collect();
        let list = List::new("X", text.as_str());
        let mut last = 0;
        for line in list.lines() {
            let line = line.unwrap_or_else(|continued| continued.line());
            let there = raw[usize::try_from(line.number()).unwrap() - 1];
            prop_assert!(there.contains(line.text()));
            prop_assert!(!line.text().is_empty());
            prop_assert!(line.number() > last);
            last = line.number();
        }
        let entries = raw
            .iter()
            .map(|line| line.strip_suffix('\r').unwrap_or(line).trim_matches([' ', '\t']))
            .filter(|line| !line.is_empty() && (!line.starts_with('#') || line.ends_with('\\')))
            .count();
        prop_assert_eq!(list.lines().count(), entries);
    }
}
