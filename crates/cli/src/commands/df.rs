//! `ringfs df`: shows how full a cluster is.

use clap::Args;

use crate::commands::ClusterChoice;
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::{Output, Table};
use crate::remote::with_client;
use crate::units::show_size;

/// Show how full the cluster is
#[derive(Args, Debug)]
pub(crate) struct DfArguments {
    #[command(flatten)]
    choice: ClusterChoice,
}

impl DfArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        with_client(&self.choice, environment, async |_, client| {
            let usage = client.statfs().await?;
            let map = client.map();
            let (used, available) = (usage.used, usage.available);
            let percent = 100.0 * used as f64 / (used.saturating_add(available).max(1)) as f64;
            let head = ["CLUSTER", "CAPACITY", "USED", "AVAILABLE", "USE", "INODES"];
            let mut table = Table::new(&[1, 2, 3, 4, 5], &head);
            table.row(vec![
                map.name().to_owned(),
                show_size(usage.capacity),
                show_size(used),
                show_size(available),
                format!("{percent:.1}%"),
                usage.inodes.to_string(),
            ]);
            let mut output = Output::new();
            table.lines().iter().try_for_each(|line| output.line(line))?;
            output.finish()
        })
    }
}
