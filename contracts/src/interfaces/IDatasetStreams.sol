// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title DatasetStreams
/// @notice Append-only lists of dataset versions, each published by its owner alone (R7b). No owner, admin key, pause or
/// proxy (R21).
/// @dev A stream is (owner, name): nobody can write into another's. Versions count from 1.
interface IDatasetStreams {
    /// @param datasetId the version's manifest digest
    /// @param shares digest of its share list (R10)
    struct Version {
        bytes32 datasetId;
        bytes32 shares;
        bool withdrawn;
    }

    event VersionPublished(
        address indexed owner, bytes32 indexed stream, uint64 number, bytes32 indexed datasetId, bytes32 shares
    );
    event VersionWithdrawn(address indexed owner, bytes32 indexed stream, uint64 number, bytes32 indexed datasetId);

    error DatasetStreams_Zero(string field);
    /// @dev R7b: a version is in a stream once, so that its number says how new it is.
    error DatasetStreams_AlreadyPublished(bytes32 stream, bytes32 datasetId, uint64 number);
    error DatasetStreams_NoSuchVersion(bytes32 stream, uint64 number);
    error DatasetStreams_AlreadyWithdrawn(bytes32 stream, uint64 number);

    /// @notice Appends a version to the caller's stream.
    function publish(bytes32 stream, bytes32 datasetId, bytes32 shares) external returns (uint64 number);

    /// @notice Takes a version back: no request may name it any more (R8). The latest is then the newest that is left.
    function withdraw(bytes32 stream, uint64 number) external;

    /// @notice Which number a dataset has in a stream, and which is the latest; zero for none, and for a withdrawn one.
    function find(address owner, bytes32 stream, bytes32 datasetId) external view returns (uint64 number, uint64 latest);

    function versionCount(address owner, bytes32 stream) external view returns (uint64);

    /// @param number from 1
    function version(address owner, bytes32 stream, uint64 number) external view returns (Version memory);
}
