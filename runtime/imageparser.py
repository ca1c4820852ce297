"""The grammar of the commands about images, and about files in containers."""

from __future__ import annotations

import argparse

from runtime.commands import TABLE, add_command

_CHANGE = (
    "a line of a Dockerfile, again for each: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL,"
    " STOPSIGNAL, USER, WORKDIR"
)
_NAME = "REPOSITORY[:TAG]; without, the image has an id only"


def images(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that make, name, list and remove images."""
    listing = add_command(commands, "images", "list images")
    listing.add_argument("-q", "--quiet", action="store_true", help="ids only")
    listing.add_argument("--no-trunc", action="store_true", help="ids in full")
    listing.add_argument("--format", default="", metavar="TEMPLATE", help=TABLE)
    listing.add_argument(
        "name", nargs="?", default="", metavar="REPOSITORY[:TAG]", help="only images of this name"
    )
    load = add_command(
        commands,
        "load",
        "load the images of an archive",
        more="It is what `docker save`, `podman save`, `skopeo copy` or `mydocker save` makes: "
        "Docker's layout or OCI's, plain or compressed by gzip. It is not trusted: every "
        "digest is checked, and an archive with anything wrong in it leaves nothing.",
    )
    load.add_argument("-i", "--input", default="-", metavar="FILE", help="else standard input")
    load.add_argument("-q", "--quiet", action="store_true", help="do not name what was loaded")
    save = add_command(
        commands,
        "save",
        "save images as an archive",
        more="It is in Docker's and in OCI's layout at once, with all layers and names.",
    )
    save.add_argument("-o", "--output", default="-", metavar="FILE", help="else standard output")
    save.add_argument("images", nargs="+", metavar="IMAGE", help="name, id or its beginning")
    make = add_command(
        commands,
        "import",
        "make an image of a tar of a root file system",
        more="Owners that this user namespace does not have become root's; devices are refused.",
    )
    make.add_argument("-m", "--message", default="", help="said in the image's history")
    make.add_argument("file", metavar="FILE|-", help="plain or compressed by gzip")
    commit = add_command(commands, "commit", "make an image of a container's files")
    commit.add_argument("-a", "--author", default="", help="said in the image's configuration")
    commit.add_argument("-m", "--message", default="", help="said in the image's history")
    commit.add_argument("container", metavar="CONTAINER", help="name, id or its beginning")
    for maker in (make, commit):
        maker.add_argument(
            "-c", "--change", action="append", default=[], metavar="LINE", help=_CHANGE
        )
        maker.add_argument("name", nargs="?", default="", metavar="NAME", help=_NAME)
    tag = add_command(commands, "tag", "give an image one more name")
    tag.add_argument("image", metavar="IMAGE", help="name, id or its beginning")
    tag.add_argument("name", metavar="NAME", help="REPOSITORY[:TAG]; moved when it is taken")
    remove = add_command(commands, "rmi", "remove images, or one of their names")
    remove.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="all names; an image that a container uses stays without one",
    )
    remove.add_argument("images", nargs="+", metavar="IMAGE", help="name, id or its beginning")


def files(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that look into a container's files."""
    diff = add_command(
        commands,
        "diff",
        "what a container has changed in its image's files",
        more="One path a line, after A for added, C for changed or D for deleted.",
    )
    diff.add_argument("container", metavar="CONTAINER", help="name, id or its beginning")
    export = add_command(
        commands,
        "export",
        "a container's files as a tar",
        more="Without what is mounted in it, such as volumes.",
    )
    export.add_argument("-o", "--output", default="-", metavar="FILE", help="else standard output")
    export.add_argument("container", metavar="CONTAINER", help="name, id or its beginning")
    copy = add_command(
        commands,
        "cp",
        "copy files into a container or out of it",
        more="One of the two is CONTAINER:PATH, the other a path here, or - for a tar. Into a "
        "directory that is there a copy goes under its own name, or its content alone when the "
        "source ends in /. as in web:/etc/. here. Links never lead out of the container. "
        "Volumes are seen while it runs.",
    )
    copy.add_argument(
        "-a", "--archive", action="store_true", help="keep owners; else all is root's"
    )
    copy.add_argument(
        "-L", "--follow-link", action="store_true", help="copy what the source's link points to"
    )
    copy.add_argument("source", metavar="SOURCE", help="CONTAINER:PATH, PATH or -")
    copy.add_argument("target", metavar="TARGET", help="CONTAINER:PATH, PATH or -")
