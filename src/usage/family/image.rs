//! Image models: the images that came back are counted; size, quality and steps come from the request.
//!
//! Titan, Nova Canvas and Stability's newer models answer `images`, Stable Diffusion XL `artifacts`. An image that a
//! filter withheld is not in the list and not billed. Source: AWS's model parameters for these models.

use super::super::document::{Field, Member, Role, Site};
use super::super::json_scan::Want;

pub(in crate::usage) const BODY: Site = Site {
    path: &[],
    role: Role::Plain,
    members: &[
        Member { name: "images", want: Want::Elements, field: Field::Images },
        Member { name: "artifacts", want: Want::Elements, field: Field::Images },
    ],
};
