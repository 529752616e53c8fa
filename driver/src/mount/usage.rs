//! P8: when a volume is formatted, when it is mounted as it is, and when it is refused.
//!
//! The catalog decides, by the volume's use. A probe of the device can only forbid what the catalog allows:
//!
//! | use | probe areas | what is done |
//! | --- | --- | --- |
//! | blank | zeros | move to formatting, mkfs, move to used, mount |
//! | blank | data, or unreadable | refuse |
//! | formatting | zeros | mkfs, move to used, mount |
//! | formatting | data | zero the probe areas (our mkfs was cut off; no pod ever saw the volume), then as above |
//! | formatting | unreadable | refuse |
//! | used | not looked at | mount, or refuse where the filesystem asked for is not the one recorded |

use super::error::MountError;
use super::filesystem::FsType;
use super::probe::Probe;

/// As the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Blank,
    /// mkfs was allowed, for this filesystem, and is not known to have ended.
    Formatting {
        fs_type: FsType,
    },
    /// With the filesystem that was made; `None`: used as a raw device.
    Used {
        fs_type: Option<FsType>,
    },
}

/// What the catalog alone says to a request for a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing was ever stored: probe, then [`decide_format`].
    Prepare(FsType),
    Mount(FsType),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Format,
    /// Zero the probe areas first.
    WipeAndFormat,
}

/// `asked`: the filesystem of the request, if it names one. `read_only`: the request may not write.
pub fn plan(recorded: &Use, asked: Option<FsType>, read_only: bool) -> Result<Plan, MountError> {
    match recorded {
        Use::Blank | Use::Formatting { .. } if read_only => {
            Err(refuse("the volume holds no filesystem yet, and read-only access cannot make one".to_owned()))
        }
        Use::Blank => Ok(Plan::Prepare(asked.unwrap_or(FsType::DEFAULT))),
        Use::Formatting { fs_type: begun } => match asked {
            Some(asked) if asked != *begun => Err(refuse(format!(
                "formatting the volume as {begun} was begun and must be ended: {asked} was asked for"
            ))),
            _ => Ok(Plan::Prepare(*begun)),
        },
        Use::Used { fs_type: None } => Err(refuse(
            "the volume was used as a raw device and is never formatted: stage it as a block volume".to_owned(),
        )),
        Use::Used { fs_type: Some(made) } => match asked {
            Some(asked) if asked != *made => {
                Err(refuse(format!("the volume holds {made} and is never formatted anew: {asked} was asked for")))
            }
            _ => Ok(Plan::Mount(*made)),
        },
    }
}

/// `planned`: as it was when the plan was made; `attached`: as it is since the volume is attached here. Whoever used it
/// in between had recorded that before, and from now on nobody else's writes come through.
pub fn check_unchanged(planned: &Use, attached: &Use) -> Result<(), MountError> {
    if planned == attached {
        return Ok(());
    }
    Err(refuse("the volume was used elsewhere before it was attached here: ask again".to_owned()))
}

/// Whether a volume that is blank or formatting may be formatted now.
pub fn decide_format(recorded: &Use, probe: &Probe) -> Result<Step, MountError> {
    match (recorded, probe) {
        (Use::Used { .. }, _) => Err(refuse("the volume is marked as used and is never formatted".to_owned())),
        (_, Probe::Unreadable(reason)) => {
            Err(refuse(format!("the device cannot be read, so it is not formatted: {reason}")))
        }
        (Use::Blank | Use::Formatting { .. }, Probe::Zeros) => Ok(Step::Format),
        (Use::Formatting { .. }, Probe::Data { .. }) => Ok(Step::WipeAndFormat),
        (Use::Blank, Probe::Data { at_bytes }) => Err(refuse(format!(
            "the volume is marked as blank, but byte {at_bytes} of its device is not zero: it is not formatted"
        ))),
    }
}

fn refuse(reason: String) -> MountError {
    MountError::Refused(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT4: Use = Use::Used { fs_type: Some(FsType::Ext4) };
    const FORMATTING: Use = Use::Formatting { fs_type: FsType::Xfs };
    const RAW: Use = Use::Used { fs_type: None };

    fn probes() -> [Probe; 3] {
        [Probe::Zeros, Probe::Data { at_bytes: 1080 }, Probe::Unreadable("EIO".to_owned())]
    }

    /// P8: every use with every result of a probe.
    #[test]
    fn whole_table_of_use_and_probe() {
        let decide = |recorded: &Use| probes().map(|probe| decide_format(recorded, &probe).ok());
        assert_eq!(decide(&Use::Blank), [Some(Step::Format), None, None]);
        assert_eq!(decide(&FORMATTING), [Some(Step::Format), Some(Step::WipeAndFormat), None]);
        assert_eq!(decide(&EXT4), [None, None, None]);
        assert_eq!(decide(&RAW), [None, None, None]);
    }

    /// P8: a plan is good for what the volume was when it was attached, whatever it had been when it was looked up.
    #[test]
    fn a_plan_does_not_outlive_the_use_that_it_was_made_for() {
        let uses = [Use::Blank, FORMATTING, EXT4, RAW];
        for (index, planned) in uses.iter().enumerate() {
            let same = uses.each_ref().map(|attached| check_unchanged(planned, attached).is_ok());
            assert_eq!(same, [0, 1, 2, 3].map(|other| other == index), "{planned:?}");
        }
    }

    /// P8: every use with every request.
    #[test]
    fn a_used_volume_is_mounted_as_it_is_or_refused() {
        let asked = [None, Some(FsType::Ext4), Some(FsType::Xfs)];
        let of = |recorded: &Use, read_only| asked.map(|asked| plan(recorded, asked, read_only).ok());
        let prepare = |fs_type| Some(Plan::Prepare(fs_type));
        assert_eq!(of(&Use::Blank, false), [FsType::Ext4, FsType::Ext4, FsType::Xfs].map(prepare));
        assert_eq!(of(&FORMATTING, false), [prepare(FsType::Xfs), None, prepare(FsType::Xfs)]);
        assert_eq!([of(&Use::Blank, true), of(&FORMATTING, true)], [[None; 3]; 2]);
        for read_only in [false, true] {
            let mount = Some(Plan::Mount(FsType::Ext4));
            assert_eq!(of(&EXT4, read_only), [mount, mount, None]);
            assert_eq!(of(&RAW, read_only), [None; 3]);
        }
    }
}
