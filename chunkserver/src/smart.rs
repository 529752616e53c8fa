//! What a disk's device says of its own health (SMART), as `smartctl` of smartmontools tells it in JSON.
//!
//! Pure: bytes in, a report out. The shape is that of smartctl's `--json` output, format version 1. Every field may be
//! missing: devices tell what they like. What is not there is not guessed.

mod device;
mod watch;

#[cfg(test)]
mod tests;

pub(crate) use watch::{Reports, watch};

use serde::Deserialize;

/// Numbers of ATA attributes whose raw value is a count everywhere.
const REALLOCATED_SECTORS: u32 = 5;
const REPORTED_UNCORRECTABLE: u32 = 187;
const PENDING_SECTORS: u32 = 197;

/// What a device tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Its own verdict: it is about to fail.
    pub(crate) is_failing: bool,
    pub(crate) temperature_celsius: Option<i32>,
    /// Of the endurance it was made for; may be more than 100.
    pub(crate) wear_percent: Option<u32>,
    /// Data that it could not give back.
    pub(crate) media_errors: Option<u64>,
    pub(crate) reallocated_sectors: Option<u64>,
    pub(crate) pending_sectors: Option<u64>,
    pub(crate) power_on_hours: Option<u64>,
}

/// Of one disk: the device below it and its health, or why there is none to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) device: Option<String>,
    pub(crate) health: Result<Health, String>,
}

#[derive(Deserialize)]
struct Output {
    smartctl: Option<Smartctl>,
    smart_status: Option<Status>,
    temperature: Option<Temperature>,
    power_on_time: Option<PowerOnTime>,
    endurance_used: Option<Endurance>,
    nvme_smart_health_information_log: Option<NvmeLog>,
    ata_smart_attributes: Option<AtaAttributes>,
}

#[derive(Deserialize)]
struct Smartctl {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    string: String,
}

#[derive(Deserialize)]
struct Status {
    passed: bool,
}

#[derive(Deserialize)]
struct Temperature {
    current: Option<i32>,
}

#[derive(Deserialize)]
struct PowerOnTime {
    hours: Option<u64>,
}

#[derive(Deserialize)]
struct Endurance {
    current_percent: Option<u32>,
}

#[derive(Deserialize)]
struct NvmeLog {
    percentage_used: Option<u32>,
    media_errors: Option<u64>,
}

#[derive(Deserialize)]
struct AtaAttributes {
    #[serde(default)]
    table: Vec<AtaAttribute>,
}

#[derive(Deserialize)]
struct AtaAttribute {
    id: u32,
    raw: Raw,
}

#[derive(Deserialize)]
struct Raw {
    value: u64,
}

/// What smartctl printed. Why it is no health: in its own words, if it has any.
pub(crate) fn parse(printed: &[u8]) -> Result<Health, String> {
    let output: Output =
        serde_json::from_slice(printed).map_err(|error| format!("smartctl printed what is not understood: {error}"))?;
    let Some(Status { passed }) = output.smart_status else {
        let messages = output.smartctl.map(|smartctl| smartctl.messages).unwrap_or_default();
        let said = messages.into_iter().next().map(|message| message.string);
        return Err(said.unwrap_or_else(|| "the device has no SMART".to_owned()));
    };
    let (nvme, ata) = (output.nvme_smart_health_information_log, output.ata_smart_attributes);
    let attribute = |id: u32| {
        let found = ata.as_ref()?.table.iter().find(|attribute| attribute.id == id)?;
        Some(found.raw.value)
    };
    let of_nvme = nvme.as_ref().and_then(|log| log.percentage_used);
    Ok(Health {
        is_failing: !passed,
        temperature_celsius: output.temperature.and_then(|temperature| temperature.current),
        wear_percent: of_nvme.or(output.endurance_used.and_then(|endurance| endurance.current_percent)),
        media_errors: nvme.and_then(|log| log.media_errors).or(attribute(REPORTED_UNCORRECTABLE)),
        reallocated_sectors: attribute(REALLOCATED_SECTORS),
        pending_sectors: attribute(PENDING_SECTORS),
        power_on_hours: output.power_on_time.and_then(|time| time.hours),
    })
}
