//! An SCloud operation as the API writes it: `UserOperationEvent` of `GetUserOperationEvents`.

use super::field::object;
use super::time;
use crate::event::Millis;

object! {
    /// One operation. Every field may be missing or of another type than documented.
    Operation {
        /// The region operated on.
        region: "Region",
        /// The API operation, such as `CreateUHostInstance`.
        api: "Api",
        /// Whether it succeeded.
        is_success: "IsSuccess",
        /// When, in Unix seconds.
        operate_time: "OperateTime",
        /// Who operated.
        user_name: "UserName",
        /// The operator's e-mail address.
        user_email: "UserEmail",
        /// An array of [`Resource`].
        related_resource: "RelatedResource",
        /// Where the request came from.
        remote_ip: "RemoteIP",
        /// The public half of the key that signed the request.
        access_key_id: "AccessKeyID",
    }
}

impl Operation<'_> {
    /// When it happened, if it says so readably: as documented, in another unit, or as GenAuth writes it.
    #[must_use]
    pub fn time(&self) -> Option<Millis> {
        let written = self.operate_time.text()?;
        time::from_number(written.trim()).or_else(|| time::parse(&written).map(|stamp| stamp.instant))
    }
}

object! {
    /// What an operation was about.
    Resource {
        /// The resource's id.
        id: "ResourceId",
        /// The resource's present name, looked up at each read.
        name: "ResourceName",
    }
}
