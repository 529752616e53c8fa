//! The planner's steps, carried out. Each compares what it changes with what the planner saw; one that comes too late
//! does nothing and is decided anew.

use super::seen::{Look, Measured};
use crate::control::attachment::{DetachMode, Show};
use crate::control::daemons::{CALL_TIMEOUT, refused, timed};
use crate::control::membership::event;
use crate::control::{COMMIT_TRIES_MAX, Control, raced};
use crate::error::{Error, Result};
use ashlar_catalog::{CatalogErrorKind, Event, StoredVolume};
use ashlar_plan::membership::{self, Refusal};
use ashlar_plan::repair::{Planner, Seen, Step, Why};
use ashlar_rpc::control::{AttachRole, DatapathSteerRequest, Frontend, VolumeSteer};
use ashlar_types::{DiskId, Member, MemberState, NodeName, VolumeId, VolumeRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the writers of a look are to be told.
#[derive(Default)]
struct Steers(BTreeMap<NodeName, BTreeMap<VolumeId, VolumeSteer>>);

impl Steers {
    fn of(&mut self, seen: &Seen, volume: VolumeId) -> Option<&mut VolumeSteer> {
        let holder = seen.volumes.get(&volume)?.holder.as_ref()?;
        let volumes = self.0.entry(holder.node.clone()).or_default();
        let steer = || VolumeSteer { volume: volume.to_string(), ..VolumeSteer::default() };
        Some(volumes.entry(volume).or_insert_with(steer))
    }
}

impl Control {
    /// One look, and what follows from it. Whether there is something to be done still.
    pub(in crate::control) async fn look(
        self: &Arc<Control>,
        planner: &mut Planner,
        measured: &mut Measured,
    ) -> Result<bool> {
        let grace = self.repair.bounds.grace;
        let look = self.look_at_everything(measured, self.repair_clock(), grace).await?;
        let plan = planner.plan(&look.seen);
        let mut steers = Steers::default();
        for step in &plan.steps {
            if let Err(error) = self.carry_out(step, &look, &mut steers).await {
                tracing::warn!(volume = %step.volume(), ?step, %error, "a step of repair, to be decided anew");
            }
        }
        self.steer(steers).await;
        let is_busy = !plan.steps.is_empty() || !plan.forecasts.is_empty() || !plan.stuck.is_empty();
        let news = {
            let mut last = self.repair.last();
            let stuck: BTreeSet<_> = plan.stuck.iter().map(|stuck| (stuck.volume, stuck.disk)).collect();
            let news = plan.stuck.iter().filter(|stuck| !last.stuck.contains(&(stuck.volume, stuck.disk)));
            let news: Vec<Event> = news
                .map(|stuck| {
                    let text = format!("no disk can take a replica: {}: {}", stuck.why, stuck.choice);
                    Event::new(crate::control::wall_clock_ms(), "rebuild-stuck", text)
                        .of_volume(stuck.volume)
                        .of_disk(stuck.disk)
                })
                .collect();
            last.stuck = stuck;
            last.plan = plan;
            news
        };
        if !news.is_empty() {
            self.catalog.append_events(news).await?;
        }
        let is_awaited = measured.awaits_disks()
            || look.seen.nodes.values().any(|node| node.is_silent || node.is_draining)
            || look.seen.volumes.values().any(|volume| volume.fewest_in_sync() < volume.replicas);
        Ok(is_busy || is_awaited)
    }

    async fn carry_out(self: &Arc<Control>, step: &Step, look: &Look, steers: &mut Steers) -> Result<()> {
        let volume = step.volume();
        match step {
            Step::Replace { gone, with, why, .. } => {
                let (gone, with) = (*gone, self.new_member(*with).await?);
                let text = format!("disk {} takes the place of disk {gone}: {why}", with.disk);
                let changed = |record: &VolumeRecord| membership::replace(record, gone, with.clone());
                self.change_holders(&look.volumes[&volume], changed, ("rebuild-begun", text, with.disk)).await
            }
            Step::Widen { leaving, with, why, .. } => {
                let (leaving, with) = (*leaving, self.new_member(*with).await?);
                let text = format!("disk {} comes beside disk {leaving}, which is to go: {why}", with.disk);
                let changed = |record: &VolumeRecord| membership::widen(record, leaving, with.clone());
                self.change_holders(&look.volumes[&volume], changed, ("move-begun", text, with.disk)).await
            }
            Step::Narrow { disk, why, .. } => {
                let is_in_sync = |member: &Member| member.state == MemberState::InSync;
                let is_in_sync = look.volumes[&volume].volume.record.member(*disk).is_some_and(is_in_sync);
                if let (true, Some(steer)) = (is_in_sync, steers.of(&look.seen, volume)) {
                    // Its writer lets go of it first.
                    steer.let_go_disks.push(disk.to_string());
                    return Ok(());
                }
                let text = format!("disk {disk} holds nothing of the volume any more: {why}");
                let changed = |record: &VolumeRecord| match is_in_sync {
                    true => membership::retire(record, *disk),
                    false => membership::narrow(record, *disk),
                };
                self.change_holders(&look.volumes[&volume], changed, ("replica-gone", text, *disk)).await
            }
            Step::Repair { node, why, .. } => {
                // Said again as long as it is wanted; its datapath tells that it has it.
                let is_there = self.registry.attached(volume, Some(node)).await.is_some();
                if !is_there || !look.volumes[&volume].volume.is_repaired {
                    self.in_background(volume, Repairing::Begin { node: node.clone(), why: why.clone() });
                }
                Ok(())
            }
            Step::StopRepair { .. } => {
                self.in_background(volume, Repairing::End);
                Ok(())
            }
            Step::Copy { rate, .. } => {
                steers.of(&look.seen, volume).into_iter().for_each(|s| s.copy_bytes_per_second = Some(rate.0));
                Ok(())
            }
        }
    }

    /// A member as the record names it.
    async fn new_member(&self, disk: DiskId) -> Result<Member> {
        let disks = self.registry.disks().await;
        let view = disks.into_iter().find(|view| view.disk.id == disk);
        let view = view.ok_or_else(|| Error::not_found(format_args!("disk {disk}")))?;
        let state = MemberState::Out { commit: ashlar_types::Lsn::ZERO };
        Ok(Member { disk, node: view.disk.node, zone: view.zone, state })
    }

    /// In one transaction with claims and tombstones. The record must still be what the planner saw.
    async fn change_holders(
        &self,
        seen: &StoredVolume,
        change: impl Fn(&VolumeRecord) -> std::result::Result<VolumeRecord, Refusal>,
        (kind, text, disk): (&str, String, DiskId),
    ) -> Result<()> {
        let next = change(&seen.volume.record)?;
        if next == seen.volume.record {
            return Ok(());
        }
        let claims = self.catalog.claims().await?;
        let told = event(kind, text, &next).of_disk(disk);
        match self.catalog.change_holders(seen, next, &claims, vec![told]).await {
            Err(error) if error.kind() == CatalogErrorKind::Conflict => Ok(()),
            Err(error) => Err(error.into()),
            Ok(changed) => {
                let id = changed.volume.id();
                tracing::info!(volume = %id, %disk, kind, "holders changed");
                self.reap.notify_one();
                self.tell_of_record(&changed).await;
                Ok(())
            }
        }
    }

    /// A writer that is not told hears of it with its next heartbeat.
    async fn tell_of_record(&self, changed: &StoredVolume) {
        let Some(holder) = &changed.volume.record.holder else { return };
        if let Err(error) = self
            .steer_node(
                holder,
                vec![VolumeSteer {
                    volume: changed.volume.id().to_string(),
                    newer_record: true,
                    ..VolumeSteer::default()
                }],
            )
            .await
        {
            tracing::debug!(volume = %changed.volume.id(), %error, "its writer hears of the record later");
        }
    }

    /// Tells each datapath. Those that had been told of a volume and are told nothing of it now copy it as they like
    /// when what they were told has lapsed.
    async fn steer(&self, steers: Steers) {
        for (node, volumes) in steers.0 {
            if let Err(error) = self.steer_node(&node, volumes.into_values().collect()).await {
                tracing::warn!(%node, %error, "tell a datapath how to copy");
            }
        }
    }

    async fn steer_node(&self, node: &NodeName, volumes: Vec<VolumeSteer>) -> Result<()> {
        let Some((address, true)) = self.registry.datapath(node).await else { return Ok(()) };
        let request = timed(DatapathSteerRequest { volumes }, CALL_TIMEOUT);
        let steered = self.daemons.datapath(&address)?.steer(request).await;
        steered.map(drop).map_err(|status| refused(&format!("datapath of node {node}"), status))
    }

    // ----- volumes that nobody uses

    /// One at a time for each volume; what it comes to is seen at the next look.
    fn in_background(self: &Arc<Control>, volume: VolumeId, repairing: Repairing) {
        if !self.repair.moving().insert(volume) {
            return;
        }
        let control = self.clone();
        tokio::spawn(async move {
            let done = match repairing {
                Repairing::Begin { node, why } => control.begin_repair(volume, &node, &why).await,
                Repairing::End => control.stop_repair(volume).await,
            };
            control.repair.moving().remove(&volume);
            if let Err(error) = done {
                tracing::warn!(%volume, %error, "attach or detach for repair, to be decided anew");
            }
        });
    }

    async fn begin_repair(&self, id: VolumeId, node: &NodeName, why: &Why) -> Result<()> {
        let _permit = self.in_flight.begin(id)?;
        let seen = self.volume(id).await?;
        if seen.volume.record.holder.is_some() && !seen.volume.is_repaired {
            return Ok(());
        }
        let next = membership::reserve(&seen.volume.record, node)?;
        if next != seen.volume.record || !seen.volume.is_repaired {
            let text = format!("volume {} is attached on node {node} for repair: {why}", seen.volume.name);
            let told = event("repair-begun", text, &next).of_node(node);
            self.catalog.change_repair(&seen, next, true, vec![told]).await?;
        }
        let show = Show { frontend: Frontend::None, read_only: true, keeps_use: true, role: AttachRole::Writer };
        let attached = self.attach_device(id, node, show).await.map(drop);
        if attached.is_err() {
            self.end_repair(id).await?;
        }
        attached
    }

    async fn stop_repair(&self, id: VolumeId) -> Result<()> {
        let _permit = self.in_flight.begin(id)?;
        self.end_repair(id).await
    }

    /// Whoever repairs the volume gives it up: somebody wants it, or nothing is left to repair. The caller has the
    /// volume's permit. A volume that is not being repaired is left as it is.
    pub(in crate::control) async fn end_repair(&self, id: VolumeId) -> Result<()> {
        let seen = self.volume(id).await?;
        if !seen.volume.is_repaired {
            return Ok(());
        }
        if let Some(holder) = &seen.volume.record.holder {
            self.detach_from(id, holder, DetachMode::CleanOrSilent).await?;
        }
        for _ in 0..COMMIT_TRIES_MAX {
            let seen = self.volume(id).await?;
            let record = &seen.volume.record;
            let next = if record.holder.is_some() { membership::release_by_force(record) } else { record.clone() };
            let text = format!("the repair of volume {} ends", seen.volume.name);
            let told = event("repair-ended", text, &next);
            match self.catalog.change_repair(&seen, next, false, vec![told]).await {
                Err(error) if error.kind() == CatalogErrorKind::Conflict => {}
                other => return Ok(other.map(drop)?),
            }
        }
        Err(raced(id))
    }
}

enum Repairing {
    Begin { node: NodeName, why: Why },
    End,
}
