//! The volume's events as they happen: printed one a line, and kept so that the story can wait for one.

use anyhow::{Context, Result};
use ashlar_rpc::control::{Event, EventsRequest, cluster_client::ClusterClient};
use ashlar_tests::{Clock, wait_until};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An event and when it was heard of, on the demo's clock.
#[derive(Clone, Debug)]
pub struct Heard {
    pub clock: f64,
    pub event: Event,
}

/// Follows one volume from now until the control plane goes.
pub struct Watch {
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Watch {
    pub fn start(control_url: &str, volume_id: &str, clock: Clock) -> Result<Watch> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
        let since_ms = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock after 1970")?.as_millis() as u64;
        let request = EventsRequest { volume: volume_id.to_owned(), max_entries: 0, follow: true };
        let mut stream = runtime.block_on(async {
            let mut client =
                ClusterClient::connect(control_url.to_owned()).await.context("connect to the control plane")?;
            anyhow::Ok(client.events(request).await.context("follow the events")?.into_inner())
        })?;
        let heard = Arc::new(Mutex::new(vec![]));
        let kept = heard.clone();
        std::thread::spawn(move || {
            // The stream ends with the control plane, which the story kills.
            while let Ok(Some(event)) = runtime.block_on(stream.message()) {
                if event.time_ms < since_ms {
                    continue;
                }
                clock.say(&shown(&event));
                kept.lock().expect("no user panics").push(Heard { clock: clock.seconds(), event });
            }
        });
        Ok(Watch { heard })
    }

    /// The first event of that kind about the disk.
    pub fn wait_for(&self, kind: &str, disk: &str, limit: Duration) -> Result<Heard> {
        self.wait(kind, disk, limit, |_| true)
    }

    /// The first that also brings this figure: control plane and datapath both tell of a change, each what it knows.
    pub fn wait_for_figure(&self, kind: &str, disk: &str, figure: &str, limit: Duration) -> Result<Heard> {
        self.wait(kind, disk, limit, |event| event.figures.contains_key(figure))
    }

    fn wait(&self, kind: &str, disk: &str, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Result<Heard> {
        let fits = |heard: &&Heard| heard.event.kind == kind && heard.event.disk == disk && wanted(&heard.event);
        wait_until(&format!("the event {kind:?} of disk {disk}"), limit, || {
            Ok(self.heard.lock().expect("no reader panics").iter().find(fits).cloned())
        })
    }
}

fn shown(event: &Event) -> String {
    let mut figures: Vec<String> = event.figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
    figures.sort();
    let node = if event.node.is_empty() { String::new() } else { format!(" {}", event.node) };
    format!("event: {}{node} {} {}", event.kind, event.text, figures.join(" ")).trim_end().to_owned()
}
