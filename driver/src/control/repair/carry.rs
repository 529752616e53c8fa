//! The planner's steps, carried out. Each compares what it changes with what the planner saw; one that comes too late
//! does nothing and is decided anew.

use super::figures::Figures;
use super::seen::{Look, Measured};
use crate::control::attachment::{DetachMode, Show};
use crate::control::daemons::{CALL_TIMEOUT, refused, timed};
use crate::control::membership::event;
use crate::control::placement::choice_of;
use crate::control::{COMMIT_TRIES_MAX, Control, raced, wall_clock_ms};
use crate::error::{Error, Result};
use ashlar_catalog::{CatalogErrorKind, Choice, Claims, Event, StoredVolume};
use ashlar_plan::membership::{self, Refusal};
use ashlar_plan::placement::Explanation;
use ashlar_plan::repair::{self, MemberSeen, Plan, Planner, Seen, Step, Stuck, Why};
use ashlar_rpc::control::{AttachRole, DatapathSteerRequest, Frontend, VolumeSteer};
use ashlar_types::{DiskId, Member, MemberState, NodeName, VolumeId, VolumeRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is said and kept of a change of holders.
struct Told {
    step: &'static str,
    events: Vec<(&'static str, String, DiskId)>,
    came: Option<Choice>,
}

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
        let look = self.look_at_everything(measured, self.repair_clock()).await?;
        let plan = planner.plan(&look.seen);
        let mut steers = Steers::default();
        for step in &plan.steps {
            if let Err(error) = self.carry_out(step, &look, &mut steers).await {
                tracing::warn!(volume = %step.volume(), ?step, %error, "a step of repair, to be decided anew");
            }
        }
        self.steer(steers).await;
        let is_busy = !plan.steps.is_empty() || !plan.forecasts.is_empty() || !plan.stuck.is_empty();
        let (news, is_stuck) = self.keep_look(&look, plan);
        self.catalog.append_events(news).await?;
        if is_stuck {
            // What replaced disks still have may take the place that is wanted.
            self.reap.notify_one();
        }
        // Graces run, writers are about to notice: the planner counts time by looks.
        let is_whole = |member: &MemberSeen| {
            let (disk, seen) = (member.disk, &look.seen);
            member.state.is_in_sync() && seen.is_alive(disk) && !seen.is_leaving(disk)
        };
        let is_awaited = look.seen.volumes.values().any(|volume| !volume.held().all(|(_, member)| is_whole(member)));
        Ok(is_busy || is_awaited)
    }

    /// Keeps what was seen for those who ask; returns what is new of it, and whether something is stuck anew.
    fn keep_look(&self, look: &Look, plan: Plan) -> (Vec<Event>, bool) {
        let mut last = self.repair.last();
        let stuck: BTreeSet<_> = plan.stuck.iter().map(|stuck| (stuck.volume, stuck.disk)).collect();
        let anew = plan.stuck.iter().filter(|stuck| !last.stuck.contains(&(stuck.volume, stuck.disk)));
        let told = |stuck: &Stuck| {
            let text = format!("no disk can take a replica: {}: {}", stuck.why, stuck.choice);
            Event::new(wall_clock_ms(), "rebuild-stuck", text).of_volume(stuck.volume).of_disk(stuck.disk)
        };
        let mut news: Vec<Event> = anew.map(told).collect();
        let is_stuck = !news.is_empty();
        news.extend(last.ladder.news(look, self.repair.bounds.grace));
        last.figures = Figures::of(look, &plan);
        last.surroundings = Some(repair::surroundings(&look.seen, self.repair.bounds.partners_max));
        (last.stuck, last.plan) = (stuck, plan);
        (news, is_stuck)
    }

    async fn carry_out(self: &Arc<Control>, step: &Step, look: &Look, steers: &mut Steers) -> Result<()> {
        let volume = step.volume();
        match step {
            Step::Replace { gone, with, why, choice, .. } => {
                let (gone, claims) = (*gone, self.catalog.claims().await?);
                let with = self.new_member(*with).await?;
                self.hold_copies(&look.volumes[&volume]).await;
                let changed = |record: &VolumeRecord| membership::replace(record, gone, with.clone());
                let came = choice_of(with.disk, format!("it takes the place of disk {gone}: {why}"), choice);
                let begun = format!("disk {} takes the place of disk {gone}: {why}", with.disk);
                let left = format!("disk {gone} is no member any more: what it has is deleted when it answers");
                let told = [("rebuild-begun", begun, with.disk), ("replica-gone", left, gone)];
                let told = Told { step: "replace", events: told.into(), came: Some(came) };
                self.change_holders(&look.volumes[&volume], changed, &claims, told).await
            }
            Step::Widen { leaving, with, why, choice, .. } => {
                self.widen(&look.volumes[&volume], (*leaving, *with), why, choice).await
            }
            Step::Narrow { disk, why, .. } => {
                let is_in_sync = |member: &Member| member.state == MemberState::InSync;
                let is_in_sync = look.volumes[&volume].volume.record.member(*disk).is_some_and(is_in_sync);
                match steers.of(&look.seen, volume) {
                    // Its writer lets go of it first.
                    Some(steer) if is_in_sync => steer.let_go_disks.push(disk.to_string()),
                    _ => self.narrow(&look.volumes[&volume], *disk, is_in_sync, why).await?,
                }
                Ok(())
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
            Step::Copy { rate, source, .. } => {
                if let Some(steer) = steers.of(&look.seen, volume) {
                    steer.copy_bytes_per_second = Some(rate.0);
                    steer.copy_source_disk = source.map_or_else(String::new, |disk| disk.to_string());
                }
                Ok(())
            }
        }
    }

    async fn widen(
        &self,
        seen: &StoredVolume,
        (leaving, with): (DiskId, DiskId),
        why: &Why,
        choice: &Explanation,
    ) -> Result<()> {
        let claims = self.catalog.claims().await?;
        let with = self.new_member(with).await?;
        self.hold_copies(seen).await;
        let changed = |record: &VolumeRecord| membership::widen(record, leaving, with.clone());
        let (kind, begun, reason) = match why {
            Why::Away { .. } => {
                let begun = format!("disk {} takes the new writes: {why}", with.disk);
                ("temporary-begun", begun, format!("for the new writes: {why}"))
            }
            _ => {
                let begun = format!("disk {} comes beside disk {leaving}, which is to go: {why}", with.disk);
                ("move-begun", begun, format!("disk {leaving} was to go: {why}"))
            }
        };
        let came = choice_of(with.disk, reason, choice);
        let told = Told { step: "widen", events: vec![(kind, begun, with.disk)], came: Some(came) };
        self.change_holders(seen, changed, &claims, told).await
    }

    async fn narrow(&self, seen: &StoredVolume, disk: DiskId, is_in_sync: bool, why: &Why) -> Result<()> {
        let text = format!("disk {disk} holds nothing of the volume any more: {why}");
        let events = match why {
            Why::Moved { .. } => vec![("replica-gone", text, disk)],
            Why::Cancelled { .. } => vec![("move-cancelled", text, disk)],
            Why::NoLongerAway { .. } => vec![("temporary-ended", text, disk)],
            // It is given up, and the disk beside it has its place.
            _ => {
                let begun = format!("the disk beside it takes the place of disk {disk}: {why}");
                vec![("rebuild-begun", begun, disk), ("replica-gone", text, disk)]
            }
        };
        let changed = |record: &VolumeRecord| match is_in_sync {
            true => membership::retire(record, disk),
            false => membership::narrow(record, disk),
        };
        let told = Told { step: "narrow", events, came: None };
        self.change_holders(seen, changed, &self.catalog.claims().await?, told).await
    }

    /// A member as the record names it. After claims were read: a disk that is removed meanwhile has another claim.
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
        claims: &Claims,
        told: Told,
    ) -> Result<()> {
        let next = change(&seen.volume.record)?;
        if next == seen.volume.record {
            return Ok(());
        }
        let events = told.events.into_iter().map(|(kind, text, disk)| event(kind, text, &next).of_disk(disk)).collect();
        match self.catalog.change_holders(seen, next, claims, told.came, events).await {
            Err(error) if error.kind() == CatalogErrorKind::Conflict => Ok(()),
            Err(error) => Err(error.into()),
            Ok(changed) => {
                let id = changed.volume.id();
                tracing::info!(volume = %id, step = told.step, "holders changed");
                self.metrics.count_step(told.step);
                self.reap.notify_one();
                self.tell_of_record(&changed).await;
                Ok(())
            }
        }
    }

    /// A writer that is not told hears of it with its next heartbeat.
    async fn tell_of_record(&self, changed: &StoredVolume) {
        self.tell_writer_of(changed, |steer| steer.newer_record = true).await;
    }

    /// Before a member comes that has everything to get: it gets nothing until the planner has given it a rate.
    async fn hold_copies(&self, seen: &StoredVolume) {
        self.tell_writer_of(seen, |steer| steer.copy_bytes_per_second = Some(0)).await;
    }

    async fn tell_writer_of(&self, seen: &StoredVolume, what: impl FnOnce(&mut VolumeSteer)) {
        let Some(holder) = &seen.volume.record.holder else { return };
        let volume = seen.volume.id();
        let mut steer = VolumeSteer { volume: volume.to_string(), ..VolumeSteer::default() };
        what(&mut steer);
        if let Err(error) = self.steer_node(holder, vec![steer]).await {
            tracing::debug!(%volume, %error, "its writer does not hear of it now");
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
            self.metrics.count_step("repair");
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
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.metrics.count_step("stop-repair");
                    return Ok(());
                }
            }
        }
        Err(raced(id))
    }
}

enum Repairing {
    Begin { node: NodeName, why: Why },
    End,
}
