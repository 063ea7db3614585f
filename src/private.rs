//! Files and folders that trailcast makes: for the user that it runs as and nobody else, as dead letters hold whole records.
//!
//! What is there already keeps its rights: somebody chose them, such as Kubernetes with its `fsGroup`.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a folder, and those that it lies in, where they are missing.
///
/// # Errors
/// One of them is missing and cannot be made.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// How to open a file that may have to be made.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_made_is_for_its_owner_and_what_is_there_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let (volume, file) = (place.path().join("volume"), place.path().join("volume/state/folder/file"));
        fs::create_dir(&volume).unwrap();
        set(&volume, 0o2770);
        let open = || {
            create_folder(file.parent().unwrap()).unwrap();
            drop(options().write(true).create(true).truncate(false).open(&file).unwrap());
        };
        open();
        // A folder in one of a group gets the group, and with it that bit.
        let modes = [volume.as_path(), &volume.join("state"), &volume.join("state/folder"), &file].map(mode);
        assert_eq!(modes.map(|mode| mode & 0o777), [0o770, 0o700, 0o700, 0o600], "{modes:?}");
        set(&file, 0o660);
        set(file.parent().unwrap(), 0o770);
        open();
        assert_eq!((mode(&file), mode(file.parent().unwrap()) & 0o777), (0o660, 0o770));
    }
}
