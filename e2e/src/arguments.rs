//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use crate::problem::Problem;
use crate::scenario::Scenario;

/// Runs the end-to-end scenarios over two nodes on real LiteFS.
#[derive(Debug, Clone, Parser)]
#[command(name = "litefs-e2e")]
pub struct Arguments {
    /// A node: NAME=APPLICATION_URL,LITEFS_URL. Given twice.
    #[arg(long = "node", required = true)]
    nodes: Vec<NodeAt>,
    /// The command that stops, starts, kills and promotes nodes; its arguments are a verb and a
    /// node's name.
    #[arg(long)]
    pub(crate) control: PathBuf,
    /// Run these scenarios only, such as E1,E3.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Scenario>,
    /// Skip the scenarios that need a failover, and report this reason.
    #[arg(long)]
    pub(crate) no_failover: Option<String>,
    /// The number of writers per node in scenarios with load.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) writers: u16,
}

impl Arguments {
    pub(crate) fn nodes(&self) -> Result<[NodeAt; 2], Problem> {
        let nodes: [NodeAt; 2] = self.nodes.clone().try_into().map_err(|_| "give --node twice")?;
        if nodes[0].name == nodes[1].name {
            return Err("the two nodes have the same name".into());
        }
        Ok(nodes)
    }
}

/// The addresses of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeAt {
    /// Its name in LiteFS.
    pub(crate) name: String,
    /// Base URL of the application.
    pub(crate) application: String,
    /// Base URL of LiteFS's HTTP API.
    pub(crate) litefs: String,
}

impl FromStr for NodeAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts =
            text.split_once('=').and_then(|(name, urls)| Some((name, urls.split_once(',')?)));
        match parts {
            Some((name, (application, litefs))) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                application: application.trim_end_matches('/').to_owned(),
                litefs: litefs.trim_end_matches('/').to_owned(),
            }),
            _ => Err("a node is NAME=APPLICATION_URL,LITEFS_URL".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_name_and_two_urls() {
        let node: NodeAt = "a=http://x:1/,http://x:2".parse().unwrap();
        assert_eq!((node.name.as_str(), node.application.as_str()), ("a", "http://x:1"));
        assert_eq!(node.litefs, "http://x:2");
        for bad in ["", "a", "a=http://x", "=http://x,http://y"] {
            assert!(bad.parse::<NodeAt>().is_err(), "{bad}");
        }
    }

    #[test]
    fn two_nodes_with_two_names_are_needed() {
        let parse = |nodes: &[&str]| {
            let nodes = nodes.iter().flat_map(|node| ["--node", node]);
            let line = ["litefs-e2e", "--control", "x", "--only", "E1,e7"].into_iter().chain(nodes);
            Arguments::try_parse_from(line).unwrap()
        };
        assert!(parse(&["a=b,c"]).nodes().is_err());
        assert!(parse(&["a=b,c", "a=d,e"]).nodes().is_err());
        let good = parse(&["a=b,c", "b=d,e"]);
        assert!(good.nodes().is_ok());
        assert_eq!(good.only, [Scenario::E1, Scenario::E7]);
    }
}
