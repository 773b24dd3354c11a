//! What files lie on.

use std::path::Path;

/// The device and file system a path lies on.
pub(crate) fn device_of(path: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(point).then_some((point.len(), format!("{device} ({kind})")))
    });
    mounted.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, device)| device)
}
