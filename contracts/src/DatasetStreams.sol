// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IDatasetStreams} from "./interfaces/IDatasetStreams.sol";

/// @title DatasetStreams
/// @notice See IDatasetStreams.
contract DatasetStreams is IDatasetStreams, IERC165 {
    struct Stream {
        uint64 latest;
        Version[] versions;
        mapping(bytes32 datasetId => uint64) numbers;
    }

    mapping(address owner => mapping(bytes32 name => Stream)) private _streams;

    function publish(bytes32 stream, bytes32 datasetId, bytes32 shares) external returns (uint64 number) {
        if (datasetId == 0) revert DatasetStreams_Zero("datasetId");
        if (shares == 0) revert DatasetStreams_Zero("shares");
        Stream storage s = _streams[msg.sender][stream];
        number = s.numbers[datasetId];
        if (number != 0) revert DatasetStreams_AlreadyPublished(stream, datasetId, number);
        s.versions.push(Version(datasetId, shares, false));
        number = uint64(s.versions.length);
        s.numbers[datasetId] = number;
        s.latest = number;
        emit VersionPublished(msg.sender, stream, number, datasetId, shares);
    }

    function withdraw(bytes32 stream, uint64 number) external {
        Stream storage s = _streams[msg.sender][stream];
        Version storage v = _version(s, stream, number);
        if (v.withdrawn) revert DatasetStreams_AlreadyWithdrawn(stream, number);
        v.withdrawn = true;
        if (number == s.latest) {
            uint64 latest = number;
            while (latest != 0 && s.versions[latest - 1].withdrawn) --latest;
            s.latest = latest;
        }
        emit VersionWithdrawn(msg.sender, stream, number, v.datasetId);
    }

    function find(address owner, bytes32 stream, bytes32 datasetId)
        external
        view
        returns (uint64 number, uint64 latest)
    {
        Stream storage s = _streams[owner][stream];
        number = s.numbers[datasetId];
        if (number != 0 && s.versions[number - 1].withdrawn) number = 0;
        latest = s.latest;
    }

    function versionCount(address owner, bytes32 stream) external view returns (uint64) {
        return uint64(_streams[owner][stream].versions.length);
    }

    function version(address owner, bytes32 stream, uint64 number) external view returns (Version memory) {
        return _version(_streams[owner][stream], stream, number);
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IDatasetStreams).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    function _version(Stream storage s, bytes32 stream, uint64 number) private view returns (Version storage) {
        if (number == 0 || number > s.versions.length) revert DatasetStreams_NoSuchVersion(stream, number);
        return s.versions[number - 1];
    }
}
